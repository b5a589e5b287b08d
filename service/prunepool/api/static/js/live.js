// The state of the server from /metrics, once a second while the page is visible.

import { asides, metrics } from "./api.js";
import { by, html } from "./dom.js";
import { digits, percent } from "./format.js";
import { figures, reading } from "./readings.js";
import { Sparkline } from "./sparkline.js";

const PERIOD_MS = 1000;
const KEPT = 60;

//: Name, lines (figure, short name, format), unit, smallest value of the top of the chart.
const TILES = [
  ["Throughput", [["throughput", "", digits]], "images/s", 1],
  ["Latency", [["p50", "p50", digits], ["p99", "p99", digits]], "ms", 1],
  ["Batch size", [["batch", "", digits]], "images", 2],
  ["Queue", [["queue", "", String]], "waiting", 2],
  ["Ratio", [["applied", "applied", percent], ["auto", "auto", percent]], "", 1],
];

/** Polls and draws; calls `onFigures` with each new set of figures. */
export class Live {
  constructor(onFigures) {
    this.onFigures = onFigures;
    this.model = null;
    this.readings = [];
    this.past = [];
    this.tiles = TILES.map((tile) => new Tile(...tile));
    by("tiles").replaceChildren(...this.tiles.map((tile) => tile.element));
  }

  /** Start, or restart for another model. */
  follow(model) {
    this.model = model;
    this.readings = [];
    this.past = [];
    if (!this.timer) {
      this.timer = setInterval(() => document.hidden || this.poll(), PERIOD_MS);
    }
    this.poll();
  }

  async poll() {
    if (this.polling) return;
    this.polling = true;
    const model = this.model;
    try {
      const read = reading(await metrics(), model, performance.now() / 1000, asides());
      if (model === this.model) this.take(read);
    } catch {
      this.readings = [];
      engine("down", "The server does not answer");
    } finally {
      this.polling = false;
    }
  }

  take(read) {
    this.readings = [...this.readings, read].slice(-KEPT);
    const now = figures(this.readings);
    this.past = [...this.past, now].slice(-KEPT);
    this.tiles.forEach((tile) => tile.draw(this.past));
    engine(now.up === 0 ? "starting" : "up", now.up === 0 ? "The model is not ready" : "Ready");
    this.onFigures(now);
  }
}

function engine(state, text) {
  const light = by("engine");
  if (light.dataset.state === state) return;
  light.dataset.state = state;
  light.setAttribute("title", text);
  light.setAttribute("role", "img");
  light.setAttribute("aria-label", text);
}

class Tile {
  constructor(name, lines, unit, top) {
    Object.assign(this, { name, lines, unit, top });
    this.values = lines.map(() => html("b", {}, "–"));
    this.chart = new Sparkline(lines.map(([figure]) => figure), KEPT, name);
    const written = lines.map(([figure, short], i) =>
      html("span", { class: figure }, short && html("small", {}, `${short} `), this.values[i]),
    );
    this.most = html("small", { class: "most" });
    this.element = html("figure", { class: "tile" },
      html("figcaption", {}, name, this.most),
      html("p", { class: "now" }, ...written, html("small", { class: "unit" }, unit)),
      this.chart.element);
  }

  draw(past) {
    const now = past.at(-1);
    const written = this.lines.map(([figure, short, write]) => [short, now[figure] === null ? "–" : write(now[figure])]);
    written.forEach(([, text], i) => (this.values[i].textContent = text));
    const most = this.chart.draw(this.lines.map(([figure]) => past.map((one) => one[figure])), this.top);
    const write = this.lines[0][2];
    this.most.textContent = most === null ? "" : `max ${write(most)}`;
    const said = written.map(([short, text]) => `${short} ${text}`.trim()).join(", ");
    this.chart.element.setAttribute("aria-label", `${this.name} over the last minute, now ${said} ${this.unit}`.trim());
  }
}
