// Small charts of the last minute.

import { svg } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 34;

/** A chart of several lines. */
export class Sparkline {
  constructor(lines, length, label) {
    this.length = length;
    this.areas = lines.map((name) => svg("path", { class: `area ${name}` }));
    this.lines = lines.map((name) => svg("path", { class: `line ${name}` }));
    const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "spark", role: "img", "aria-label": label };
    this.element = svg("svg", attributes, ...this.areas, ...this.lines);
  }

  /**
   * Draw one list of values for each line, the newest last; null where nothing was known.
   *
   * @param {(number|null)[][]} series
   * @param {number} top the least that the upper edge stands for.
   * @returns {?number} the largest value, if there is any.
   */
  draw(series, top) {
    const known = series.flat().filter((value) => value !== null);
    const most = Math.max(top, ...known);
    series.forEach((values, i) => {
      const points = this.points(values, most);
      this.lines[i].setAttribute("d", runs(points).map((run) => `M${run.map(([x, y]) => `${x} ${y}`).join("L")}`).join(""));
      const closed = runs(points).map((run) => `M${run[0][0]} ${HEIGHT}L${run.map(([x, y]) => `${x} ${y}`).join("L")}L${run.at(-1)[0]} ${HEIGHT}Z`);
      this.areas[i].setAttribute("d", closed.join(""));
    });
    return known.length ? Math.max(...known) : null;
  }

  points(values, most) {
    const step = WIDTH / (this.length - 1);
    const start = this.length - values.length;
    return values.map((value, i) => {
      if (value === null) return null;
      const y = HEIGHT - 1.5 - (value / most) * (HEIGHT - 4);
      return [+((start + i) * step).toFixed(2), +y.toFixed(2)];
    });
  }
}

/** Stretches without a gap; a lone point becomes a short dash. */
function runs(points) {
  const found = [];
  let current = [];
  for (const point of [...points, null]) {
    if (point) current.push(point);
    else if (current.length) {
      if (current.length === 1) current.unshift([current[0][0] - 0.8, current[0][1]]);
      found.push(current);
      current = [];
    }
  }
  return found;
}
