// Which model is served, and choosing among several.

import { by, html } from "./dom.js";

/** Say what a model is. */
export function describe(model) {
  by("model-name").textContent = model.name;
  const million = `${(model.parameters / 1e6).toFixed(1)} M parameters`;
  by("model-facts").textContent = `${million} · ${model.labels.length} classes · ${model.device} · ${model.dtype}`;
}

/** Offer a choice where there is one. */
export function choose(models, first, onChosen) {
  const select = by("model");
  if (models.length < 2) return;
  select.replaceChildren(...models.map(({ name }) => html("option", { value: name, selected: name === first }, name)));
  select.hidden = false;
  by("model-name").hidden = true;
  select.addEventListener("change", () => onChosen(select.value));
}
