// What each ratio costs: GMACs of its plan, and the accuracy and speed that were measured, with the current point.

import { by, html, svg } from "./dom.js";
import { digits, percent, wholePercent } from "./format.js";

const MARGIN = { left: 44, right: 12, top: 20, bottom: 34 };
const HEIGHT = 176;

/**
 * The points of a model's curve by ratio: those of its profile, and of its plans where none was measured.
 *
 * Top-1 is that of validation photos where several ratios have it, as in the text about the model's accuracy: the photos
 * of a profile may show few of its classes.
 *
 * @returns {{measuredOn: string, points: {ratio: number, gmacs: number, measured: boolean, top1: ?number,
 *   agreement: ?number, speedup: ?number}[]}}
 */
export function curveOf({ profile, plans }) {
  const validations = (profile ?? []).flatMap(({ validation }) => validation ?? []);
  const validated = validations.length > 1 ? validations[0] : null;
  const top1Of = (point) => (validated ? point.validation : point)?.top1 ?? null;
  const measured = (profile ?? []).map(({ agreement = null, speed, ...point }) => ({
    ratio: point.ratio, gmacs: point.gmacs, measured: true, top1: top1Of(point), agreement, speedup: point.ratio === 0 ? 1 : speed?.speedup ?? null,
  }));
  const far = ({ reduction_ratio: ratio }) => measured.every((point) => Math.abs(point.ratio - ratio) > 1e-3);
  const others = plans.filter(far).map(({ reduction_ratio: ratio, gmacs }) => ({
    ratio, gmacs, measured: false, top1: null, agreement: null, speedup: null,
  }));
  const points = [...measured, ...others].sort((a, b) => a.ratio - b.ratio);
  const images = profile?.find((point) => point.images)?.images;
  const top1On = validated ? `, top-1 on ${validated.images} ${validated.of ?? "photos"}` : "";
  return { measuredOn: images ? ` on ${images} photos${top1On}` : "", points };
}

//: Panels below the cost: name, figure, its text.
const PANELS = [
  ["top-1", "top1", percent],
  ["agreement with dense", "agreement", percent],
  ["speed against dense", "speedup", (value) => `×${value.toFixed(2)}`],
];

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
    const measured = this.curve.points.some((point) => point.measured);
    const { device, dtype } = model.profile?.find(({ speed }) => speed)?.speed ?? {};
    const speed = device ? `; speed on ${device} in ${dtype}, perhaps another one than this` : "";
    by("curve-note").textContent = measured
      ? `GMACs are counted. Dots: measured for ${model.name}${this.curve.measuredOn}${speed}.`
      : "Counted from the model's plans; accuracy per ratio is not measured yet.";
    this.draw();
  }

  /** Set the current point. */
  point(ratio, gmacs) {
    this.current = { ratio, gmacs };
    this.draw();
  }

  /** The curve's points from 0 to the model's limit, and the current one. */
  points() {
    const { points } = this.curve;
    if (!this.current || points.some(({ ratio }) => Math.abs(ratio - this.current.ratio) < 1e-3)) return points;
    return [...points, this.current].sort((a, b) => a.ratio - b.ratio);
  }

  /** One chart for the cost, and one for each figure that was measured at several ratios. */
  draw() {
    if (!this.model || !this.box.clientWidth) return;
    const known = PANELS.filter(([, figure]) => this.curve.points.filter((point) => point[figure] !== null).length > 1);
    const label = this.current
      ? `At ${percent(this.current.ratio)} the model spends ${digits(this.current.gmacs)} GMACs, dense ${digits(this.model.gmacs)}`
      : "GMACs against the reduction ratio";
    const frames = [label, ...known.map(([name]) => `${name} against the reduction ratio`)].map((words) => html("div", { "aria-label": words, role: "img" }));
    this.box.style.setProperty("--panels", known.length);
    this.box.replaceChildren(...frames);
    const [first, ...others] = frames;
    first.append(this.chart(first, (x, right) => this.costs(this.points(), x, right)));
    others.forEach((frame, i) => frame.append(this.chart(frame, (x, right) => this.panel(known[i], x, right))));
  }

  /** A chart as wide as its frame; a click on it picks a ratio. */
  chart(frame, parts) {
    const width = frame.clientWidth;
    const right = width - MARGIN.right;
    const limit = this.model.max_reduction_ratio;
    const x = (ratio) => MARGIN.left + (ratio / limit) * (right - MARGIN.left);
    const chart = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" }, ...parts(x, right));
    const step = right - MARGIN.left < 260 ? 0.4 : 0.2;
    for (let ratio = 0; ratio <= limit; ratio += step) chart.append(text(x(ratio), HEIGHT - MARGIN.bottom + 16, percent(ratio), "tick", "middle"));
    chart.append(text((MARGIN.left + right) / 2, HEIGHT - 3, "patch tokens removed", "tick", "middle"));
    chart.addEventListener("click", (event) => {
      const at = (event.clientX - chart.getBoundingClientRect().left - MARGIN.left) / (right - MARGIN.left);
      this.onPick(Math.min(limit, Math.max(0, Math.round(at * limit * 200) / 200)));
    });
    return chart;
  }

  costs(points, x, right) {
    const bottom = HEIGHT - MARGIN.bottom;
    const dense = this.model.gmacs;
    const step = niceStep(dense / 4);
    const y = (gmacs) => bottom - (gmacs / (dense * 1.06)) * (bottom - MARGIN.top);
    const parts = [];
    for (let value = 0; value <= dense; value += step) parts.push(...ruled(right, y(value), digits(value)));
    parts.push(text(4, 11, "GMACs", "tick"));
    const line = points.map(({ ratio, gmacs }) => `${x(ratio)} ${y(gmacs)}`);
    const last = x(points.at(-1).ratio);
    parts.push(svg("path", { class: "saved", d: `M${line.join("L")}L${last} ${y(dense)}L${x(0)} ${y(dense)}Z` }));
    parts.push(svg("path", { class: "dense", d: `M${MARGIN.left} ${y(dense)}H${right}` }));
    parts.push(text(right, y(dense) - 6, `dense ${digits(dense)}`, "tick", "end"));
    parts.push(svg("path", { class: "spent", d: `M${line.join("L")}` }));
    const measured = this.curve.points.filter((point) => point.measured);
    parts.push(...dots(measured, x, ({ gmacs }) => y(gmacs)));
    if (this.current) parts.push(...this.here(x, y, dense, bottom));
    return parts;
  }

  here(x, y, dense, bottom) {
    const { ratio, gmacs } = this.current;
    const [over, at] = [x(ratio), y(gmacs)];
    const left = ratio > this.model.max_reduction_ratio / 2;
    const words = `${digits(gmacs)} GMACs${gmacs < dense ? `, −${wholePercent(1 - gmacs / dense)}` : ""}`;
    return [
      svg("path", { class: "drop-line", d: `M${over} ${at}V${bottom}` }),
      svg("path", { class: "gain", d: `M${over} ${y(dense)}V${at}` }),
      svg("circle", { class: "here", cx: over, cy: at, r: 6 }),
      text(over + (left ? -10 : 10), at + (left ? 20 : 34), words, "here-text", left ? "end" : "start"),
    ];
  }

  /** A figure that was measured at some ratios; its axis is as long as that of the cost. */
  panel([name, figure, words], x, right) {
    const bottom = HEIGHT - MARGIN.bottom;
    const points = this.curve.points.filter((point) => point[figure] !== null);
    const [least, most] = axisOf(points.map((point) => point[figure]));
    const y = (value) => bottom - ((value - least) / (most - least)) * (bottom - MARGIN.top);
    const line = points.map((point) => `${x(point.ratio)} ${y(point[figure])}`);
    const parts = [least, (least + most) / 2, most].flatMap((value) => ruled(right, y(value), words(value)));
    parts.push(text(4, 11, name, "tick"), svg("path", { class: "spent", d: `M${line.join("L")}` }));
    parts.push(...dots(points, x, (point) => y(point[figure])));
    if (this.current) parts.push(svg("path", { class: "drop-line", d: `M${x(this.current.ratio)} ${MARGIN.top}V${bottom}` }));
    return parts;
  }
}

/** Ends of an axis around some values, in twentieths. */
function axisOf(values) {
  const least = Math.floor(Math.min(...values) * 20 - 1e-9) / 20;
  const most = Math.ceil(Math.max(...values) * 20 + 1e-9) / 20;
  const top = Math.max(...values) <= 1 ? Math.min(1, most) : most;
  return [Math.min(least, top - 0.1), top];
}

const dots = (points, x, y) => points.map((point) => svg("circle", { class: "dot", cx: x(point.ratio), cy: y(point), r: 2.5 }));

function ruled(right, y, words) {
  return [svg("path", { class: "rule", d: `M${MARGIN.left} ${y}H${right}` }), text(MARGIN.left - 7, y + 4, words, "tick", "end")];
}

const text = (x, y, words, name, anchor = "start") => svg("text", { x, y, class: name, "text-anchor": anchor }, words);

/** 1, 2 or 5 times a power of ten, near to what is wanted. */
function niceStep(wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * ([1, 2, 5].find((factor) => factor * power >= wanted) ?? 10);
}
