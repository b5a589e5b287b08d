// Shows an error, and offers a retry.

import { useKey } from "./api.js";
import { by } from "./dom.js";

let again = null;

by("again").addEventListener("click", () => again?.());
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(by("key").value.trim());
  again?.();
});

/** Show a problem; offer `retry` if it may help. */
export function show(problem, retry) {
  by("notice-title").textContent = `${problem.title}.`;
  by("notice-detail").textContent = sentence(problem);
  by("key-form").hidden = problem.status !== 401;
  const helps = problem.status === 0 || problem.status === 429 || problem.status >= 500;
  again = retry;
  by("again").hidden = !helps;
  by("notice").hidden = false;
}

/** Hide the notice. */
export function hide() {
  by("notice").hidden = true;
}

function sentence({ detail, retryAfter }) {
  const text = (detail ?? "").replace(/^./, (first) => first.toUpperCase()).replace(/([^.!?])$/, "$1.");
  return retryAfter ? `${text} Try again in ${Math.ceil(retryAfter)} s.` : text;
}
