// The cost of each ratio: the model's measured profile, or else its plans, with the current point.

import { by, svg } from "./dom.js";
import { digits, percent, wholePercent } from "./format.js";

const MARGIN = { left: 44, right: 12, top: 20, bottom: 34 };
const HEIGHT = 176;
const PANEL = 84; // for agreement, if it was measured
const GAP = 30;

/**
 * The points of a model's curve by ratio, measured ones if there are any.
 *
 * @returns {{measured: boolean, images: ?number, points: {ratio: number, gmacs: number, agreement: ?number}[]}}
 */
export function curveOf(model) {
  const measured = Boolean(model.profile?.length);
  const points = measured
    ? model.profile.map(({ ratio, gmacs, agreement = null }) => ({ ratio, gmacs, agreement }))
    : model.plans.map(({ reduction_ratio: ratio, gmacs }) => ({ ratio, gmacs, agreement: null }));
  const images = model.profile?.find((point) => point.images)?.images ?? null;
  return { measured, images, points: points.sort((a, b) => a.ratio - b.ratio) };
}

/** Draws the curve; a click on it calls `onPick` with a ratio. */
export class Curve {
  constructor(onPick) {
    this.onPick = onPick;
    this.box = by("curve");
    this.model = null;
    this.current = null;
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  follow(model) {
    this.model = model;
    this.curve = curveOf(model);
    this.current = null;
    const where = this.curve.images ? ` on ${this.curve.images} photos` : "";
    by("curve-note").textContent = this.curve.measured
      ? `Measured${where} for ${model.name}.`
      : "Counted from the model's plans; accuracy per ratio is not measured yet.";
    this.draw();
  }

  /** Set the current point. */
  point(ratio, gmacs) {
    this.current = { ratio, gmacs };
    this.draw();
  }

  /** The curve's points, and the current one where it lies between or beyond them. */
  points() {
    const { points } = this.curve;
    if (!this.current || points.some(({ ratio }) => Math.abs(ratio - this.current.ratio) < 1e-3)) return points;
    return [...points, { ...this.current, agreement: null }].sort((a, b) => a.ratio - b.ratio);
  }

  draw() {
    const width = this.box.clientWidth;
    if (!this.model || !width) return;
    const points = this.points();
    const agreements = points.filter((point) => point.agreement !== null);
    const height = HEIGHT + (agreements.length ? PANEL + GAP : 0);
    const right = width - MARGIN.right;
    this.x = (ratio) => MARGIN.left + (ratio / this.model.max_reduction_ratio) * (right - MARGIN.left);
    this.ratioAt = (x) => ((x - MARGIN.left) / (right - MARGIN.left)) * this.model.max_reduction_ratio;
    const label = this.current
      ? `At ${percent(this.current.ratio)} the model spends ${digits(this.current.gmacs)} GMACs, dense ${digits(this.model.gmacs)}`
      : "GMACs against the reduction ratio";
    const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    chart.append(...this.costs(points, right));
    if (agreements.length) chart.append(...this.agreement(agreements, right, HEIGHT + GAP));
    chart.addEventListener("click", (event) => this.pick(event));
    this.box.replaceChildren(chart);
  }

  pick(event) {
    const ratio = this.ratioAt(event.clientX - this.box.getBoundingClientRect().left);
    this.onPick(Math.min(this.model.max_reduction_ratio, Math.max(0, Math.round(ratio * 200) / 200)));
  }

  costs(points, right) {
    const bottom = HEIGHT - MARGIN.bottom;
    const dense = this.model.gmacs;
    const step = niceStep(dense / 4);
    const y = (gmacs) => bottom - (gmacs / (dense * 1.06)) * (bottom - MARGIN.top);
    const parts = [];
    for (let value = 0; value <= dense; value += step) parts.push(...ruled(right, y(value), digits(value)));
    for (let ratio = 0; ratio <= this.model.max_reduction_ratio; ratio += 0.2) {
      parts.push(text(this.x(ratio), bottom + 16, percent(ratio), "tick", "middle"));
    }
    parts.push(text((MARGIN.left + right) / 2, bottom + 31, "patch tokens removed", "tick", "middle"));
    parts.push(text(4, 11, "GMACs", "tick"));
    const line = points.map(({ ratio, gmacs }) => `${this.x(ratio)} ${y(gmacs)}`);
    const last = this.x(points.at(-1).ratio);
    parts.push(svg("path", { class: "saved", d: `M${line.join("L")}L${last} ${y(dense)}L${this.x(0)} ${y(dense)}Z` }));
    parts.push(svg("path", { class: "dense", d: `M${MARGIN.left} ${y(dense)}H${right}` }));
    parts.push(text(right, y(dense) - 6, `dense ${digits(dense)}`, "tick", "end"));
    parts.push(svg("path", { class: "spent", d: `M${line.join("L")}` }));
    parts.push(...this.curve.points.map(({ ratio, gmacs }) => svg("circle", { class: "dot", cx: this.x(ratio), cy: y(gmacs), r: 2.5 })));
    if (this.current) parts.push(...this.here(y, dense, bottom));
    return parts;
  }

  here(y, dense, bottom) {
    const { ratio, gmacs } = this.current;
    const [x, at] = [this.x(ratio), y(gmacs)];
    const left = ratio > this.model.max_reduction_ratio / 2;
    const words = `${digits(gmacs)} GMACs${gmacs < dense ? `, −${wholePercent(1 - gmacs / dense)}` : ""}`;
    return [
      svg("path", { class: "drop-line", d: `M${x} ${at}V${bottom}` }),
      svg("path", { class: "gain", d: `M${x} ${y(dense)}V${at}` }),
      svg("circle", { class: "here", cx: x, cy: at, r: 6 }),
      text(x + (left ? -10 : 10), at + (left ? 20 : 34), words, "here-text", left ? "end" : "start"),
    ];
  }

  agreement(points, right, top) {
    const bottom = top + PANEL - 14;
    const least = Math.floor(Math.min(...points.map((point) => point.agreement)) * 20) / 20 - 0.05;
    const y = (share) => bottom - ((share - least) / (1 - least)) * (bottom - top);
    const line = points.map(({ ratio, agreement }) => `${this.x(ratio)} ${y(agreement)}`);
    const parts = [least, (1 + least) / 2, 1].flatMap((share) => ruled(right, y(share), wholePercent(share)));
    parts.push(text(4, top - 9, "agreement with dense", "tick"), svg("path", { class: "spent", d: `M${line.join("L")}` }));
    if (this.current) parts.push(svg("path", { class: "drop-line", d: `M${this.x(this.current.ratio)} ${top}V${bottom}` }));
    return parts;
  }
}

function ruled(right, y, words) {
  return [svg("path", { class: "rule", d: `M${MARGIN.left} ${y}H${right}` }), text(MARGIN.left - 7, y + 4, words, "tick", "end")];
}

const text = (x, y, words, name, anchor = "start") => svg("text", { x, y, class: name, "text-anchor": anchor }, words);

/** 1, 2 or 5 times a power of ten, near to what is wanted. */
function niceStep(wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * ([1, 2, 5].find((factor) => factor * power >= wanted) ?? 10);
}
