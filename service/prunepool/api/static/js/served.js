// Describes the served model, and offers a choice among several.

import { by, html } from "./dom.js";
import { scientific, wholePercent } from "./format.js";

/** Show the facts about a model. */
export function describe(model) {
  by("model-name").textContent = model.name;
  const million = `${(model.parameters / 1e6).toFixed(1)} M parameters`;
  by("accuracy").textContent = `${accuracyOf(model)} ${formatOf(model)}`.trim();
  by("model-facts").textContent = `${million} · ${model.device} · ${model.dtype}`;
}

/**
 * The accuracy of a model at ratio 0; empty if it was not measured.
 *
 * Validation photos say more than the photos that the profile was measured on, which may show few of its classes.
 */
export function accuracyOf(model) {
  const dense = model.profile?.find(({ ratio }) => ratio === 0);
  const { top1, top5, images, of = "photos" } = dense?.validation ?? dense ?? {};
  if (top1 === undefined) return "";
  const five = top5 < 1 ? `, and has the right class among its five best on ${wholePercent(top5)}` : "";
  return `At ratio 0 this model is right on ${wholePercent(top1)} of ${images} ${of}${five}.`;
}

/** The number format that a model computes in, and how far it is from float32. */
export function formatOf({ dtype, number_formats: tried }) {
  if (dtype === "float32") return "It computes in float32.";
  const chosen = tried.find((one) => one.chosen);
  if (!chosen) return `It computes in ${dtype}, which was not compared with float32 here.`;
  const same = Math.min(...chosen.measured.map(({ agreement }) => agreement));
  const apart = Math.max(...chosen.measured.map(({ kl }) => kl));
  return `It computes in ${dtype}: the same best class as in float32 on ${wholePercent(same)} of the sample photos, ` +
    `with probabilities ${scientific(apart)} nats apart.`;
}

/** The reduction method of a model; its dense plan has none. */
export const methodOf = (model) => model.plans.find(({ removed }) => removed.length)?.method ?? null;

/** List the served models. */
export function listModels(models, usual) {
  const cell = (...words) => html("td", {}, ...words);
  by("models-rows").replaceChildren(...models.map((model) => html("tr", {},
    html("th", { scope: "row" }, html("a", { href: `models/${encodeURIComponent(model.name)}` }, model.name), model.name === usual ? " (default)" : ""),
    cell(model.architecture), cell(`${model.input_size}²`), cell(model.classes.toLocaleString("en")),
    cell(`${(model.parameters / 1e6).toFixed(1)} M`), cell(`${model.device}, ${model.dtype}`),
    cell(wholePercent(model.max_reduction_ratio)), cell(model.licence))));
}

/** Offer a choice if there are several models. */
export function choose(models, first, onChosen) {
  const select = by("model");
  if (models.length < 2) return;
  select.replaceChildren(...models.map(({ name }) => html("option", { value: name, selected: name === first }, name)));
  select.hidden = false;
  by("model-name").hidden = true;
  select.addEventListener("change", () => onChosen(select.value));
}
