// Making elements from names and text, never from markup: no text of anybody's can become an element.

const SVG = "http://www.w3.org/2000/svg";

/** The element with an id; it is a mistake of ours if there is none. */
export function by(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** An HTML element with attributes and children. */
export const html = (name, attributes = {}, ...children) =>
  filled(document.createElement(name), attributes, children);

/** An SVG element with attributes and children. */
export const svg = (name, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);

/** Whether the person asked for less movement. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Tell those who cannot see the page what has changed on it. */
export function announce(text) {
  by("announce").textContent = text;
}
