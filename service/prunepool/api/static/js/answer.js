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
  if (dense) words.push(agrees(answer, dense) ? "The unreduced model says the same." : `The unreduced model says ${dense.predictions[0].label}.`);
  words.push(`${percent(answer.reduction.applied)} of the tokens removed, ${wholePercent(answer.reduction.macs_saved)} of the work saved.`);
  return words.join(" ");
}

/** Clear the answer, and say why there is none. */
export function clear(why = "No answer") {
  verdict(why, "");
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
  verdict(best.label, score(best.score), dense ? agrees(answer, dense) : null);
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
  element.textContent = same ? "same as unreduced" : `unreduced: ${dense.predictions[0].label}`;
}

/** The best class and its score, in the answer and, for a phone, beside the dial. */
function verdict(label, shown, same = null) {
  by("label").textContent = label;
  by("score").textContent = shown;
  by("dial-verdict").textContent = label;
  by("dial-verdict").dataset.same = same;
}

function figures(answer, dense, timed) {
  const { gmacs, macs_saved: saved } = answer.reduction;
  const { grid, tokens } = answer.token_map;
  const patches = grid[0] * grid[1];
  const full = dense?.reduction;
  return [
    figure("Work", digits(gmacs), "GMACs", full && digits(full.gmacs), gmacs / (full?.gmacs ?? gmacs / (1 - saved)), saved > 0 ? `−${wholePercent(saved)}` : ""),
    figure("Tokens left", String(tokens.length), `of ${patches}`, full && String(patches), tokens.length / patches, ""),
    timed ? figure(`Time, median of ${timed.runs}`, ms(timed.dial), "", ms(timed.dense), timed.dial / timed.dense, "") : untimed(),
  ];
}

/** In place of times: one run of each says nothing, because runs of the same plan differ by more than plans do. */
const untimed = () =>
  html("div", {}, html("dt", {}, "Time in the model"), html("dd", {}, html("b", {}, "–")), html("dd", { class: "against" }, "not compared yet"));

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
