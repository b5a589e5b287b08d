// The answer at the dial, compared with that of the full model.

import { by, html } from "./dom.js";
import { digits, ms, percent, score, wholePercent } from "./format.js";

const ROWS = 5;

/** Whether the top class is that of the full model. */
export const agrees = (answer, dense) => answer.predictions[0].index === dense.predictions[0].index;

/** Describe the answer for screen readers. */
export function sentence(answer, dense) {
  const best = answer.predictions[0];
  const words = [`${best.label}, ${score(best.score)}.`];
  if (dense) words.push(agrees(answer, dense) ? "The full model says the same." : `The full model says ${dense.predictions[0].label}.`);
  words.push(`${percent(answer.reduction.applied)} of the tokens removed, ${wholePercent(answer.reduction.macs_saved)} of the work saved.`);
  return words.join(" ");
}

/** Clear the answer. */
export function clear() {
  by("label").textContent = "No answer";
  by("score").textContent = "";
  by("agreement").hidden = true;
  by("timing").textContent = "";
  by("figures").replaceChildren();
  by("top").replaceChildren();
}

/**
 * Show an answer.
 *
 * @param {object} answer the classification at the dial.
 * @param {?object} dense the classification of the full model; null until it arrives.
 * @param {?{dial: number, dense: number, runs: number}} timed median milliseconds, if they were measured.
 */
export function show(answer, dense, timed = null) {
  const best = answer.predictions[0];
  by("label").textContent = best.label;
  by("score").textContent = score(best.score);
  chip(answer, dense);
  by("figures").replaceChildren(...figures(answer, dense, timed));
  by("top").replaceChildren(...rows(answer, dense).map(([p, full]) => row(p, full, Boolean(dense))));
  by("timing").textContent = timing(answer);
}

function chip(answer, dense) {
  const element = by("agreement");
  element.hidden = !dense;
  if (!dense) return;
  const same = agrees(answer, dense);
  element.dataset.same = same;
  element.textContent = same ? "✓ as the full model" : `✕ full model: ${dense.predictions[0].label}`;
}

function figures(answer, dense, timed) {
  const { gmacs, macs_saved: saved } = answer.reduction;
  const { grid, tokens } = answer.token_map;
  const patches = grid[0] * grid[1];
  const full = dense?.reduction;
  const first = timed ? timed.dial : answer.timing_ms.inference;
  const second = timed ? timed.dense : dense?.timing_ms.inference;
  return [
    figure("Work", digits(gmacs), "GMACs", full && digits(full.gmacs), gmacs / (full?.gmacs ?? gmacs / (1 - saved)), saved > 0 ? `−${wholePercent(saved)}` : ""),
    figure("Tokens left", String(tokens.length), `of ${patches}`, full && String(patches), tokens.length / patches, ""),
    figure(timed ? `Time, median of ${timed.runs}` : "Time in the model", ms(first), "", second && ms(second), second ? first / second : 1, ""),
  ];
}

function figure(name, value, unit, dense, share, delta) {
  const bar = html("span", { class: "bar" });
  bar.style.setProperty("--share", Math.min(1, share));
  const now = html("dd", {}, html("b", {}, value), unit && ` ${unit}`, delta && html("span", { class: "delta" }, ` ${delta}`));
  return html("div", {}, html("dt", {}, name), now, html("dd", { class: "against" }, bar, dense ? `dense ${dense}` : "dense …"));
}

/** The top five classes at the dial with the full model's scores, and the full model's top class. */
function rows(answer, dense) {
  const full = new Map((dense?.predictions ?? []).map((p) => [p.index, p.score]));
  const found = answer.predictions.slice(0, ROWS).map((p) => [p, full.get(p.index) ?? 0]);
  const top = dense?.predictions[0];
  if (top && !found.some(([p]) => p.index === top.index)) found.push([{ ...top, score: null }, top.score]);
  return found;
}

function row(prediction, full, known) {
  const cell = (value, kind) => {
    const made = html("td", { class: kind }, value === null ? "below" : score(value));
    made.style.setProperty("--share", value ?? 0);
    return made;
  };
  const name = html("th", { scope: "row" }, prediction.label);
  const dense = known ? cell(full, "at-dense") : html("td", { class: "at-dense" }, "…");
  return html("tr", {}, name, cell(prediction.score, "at-dial"), dense);
}

function timing(answer) {
  const { decode, queue, inference, total } = answer.timing_ms;
  const batch = answer.batch_size > 1 ? `, in a batch of ${answer.batch_size}` : "";
  return `${ms(total)} in all: decode ${digits(decode)}, queue ${digits(queue)}, model ${digits(inference)}${batch}.`;
}
