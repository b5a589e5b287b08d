// What the model knows: the number of its classes, and their names on demand.

import { by, html } from "./dom.js";

/** Show the classes of a model; the list is made when it is opened. */
export function showClasses(model) {
  const { labels } = model;
  const some = labels.slice(0, 12).join(", ") + (labels.length > 12 ? ", …" : "");
  by("classes-count").textContent = `${labels.length.toLocaleString("en")} classes`;
  const details = by("classes");
  details.hidden = labels.length === 0; // its output is an embedding
  details.title = some;
  details.open = false;
  by("classes-list").replaceChildren();
  by("classes-find").value = "";
  details.ontoggle = () => details.open && list(labels);
  by("classes-find").oninput = () => list(labels);
}

function list(labels) {
  const wanted = by("classes-find").value.trim().toLowerCase();
  const found = labels.filter((label) => label.toLowerCase().includes(wanted));
  by("classes-list").replaceChildren(...found.map((label) => html("li", {}, label)));
  by("classes-none").hidden = found.length > 0;
}
