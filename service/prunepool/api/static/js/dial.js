// The dial: a ratio from 0 to the model's limit, or `auto`.

import { by, html } from "./dom.js";
import { percent } from "./format.js";

const STEP = 0.005;
//: The ratio in the tables of the paper: 50 tokens at each of three blocks of a DeiT.
const PAPER = 0.755;

/** Calls `onTurn` whenever the user turns it. */
export class Dial {
  constructor(onTurn) {
    this.onTurn = onTurn;
    this.slider = by("ratio");
    this.auto = by("auto");
    this.limit = 0;
    this.ratio = 0; // finer than the steps of the slider, because the limit may lie between two of them
    this.slider.addEventListener("input", () => {
      this.ratio = Math.min(Number(this.slider.value), this.limit);
      this.auto.checked = false;
      this.turned();
    });
    this.auto.addEventListener("change", () => this.turned());
  }

  /** Apply the limit of a model; keep the ratio if possible. */
  configure(model) {
    this.limit = model.max_reduction_ratio;
    const first = this.slider.disabled;
    this.slider.max = Math.ceil(this.limit / STEP - 1e-9) * STEP;
    this.slider.disabled = false;
    this.ratio = first ? Math.min(PAPER, this.limit) : Math.min(this.ratio, this.limit);
    this.slider.value = this.ratio;
    // "Default" is what a request that names no ratio gets: `auto`, or a number that the server is set to.
    const usual = model.requested_by_default;
    by("auto-default").hidden = usual !== "auto";
    const presets = [
      ["Dense", 0],
      ...(usual === "auto" ? [] : [["Default", usual]]),
      ["Model’s", model.default_reduction_ratio],
      ["Paper", PAPER],
      ["Limit", this.limit],
    ];
    const shown = presets.filter(([, ratio], i) => ratio <= this.limit && presets.findIndex(([, r]) => r === ratio) === i);
    by("presets").replaceChildren(...shown.map(([name, ratio]) => this.preset(name, ratio)));
    this.draw();
  }

  preset(name, ratio) {
    const button = html("button", { type: "button", "data-ratio": ratio }, name, html("small", {}, percent(ratio)));
    button.addEventListener("click", () => this.set(ratio));
    return button;
  }

  /** Begin at a ratio that a link asks for. */
  start(ratio) {
    this.auto.checked = ratio === "auto";
    if (ratio !== "auto") {
      this.ratio = Math.min(ratio, this.limit);
      this.slider.value = this.ratio;
    }
    this.draw();
  }

  /** The ratio to request: a number, or "auto". */
  get value() {
    return this.auto.checked ? "auto" : this.ratio;
  }

  set(ratio) {
    this.auto.checked = false;
    this.ratio = ratio;
    this.slider.value = ratio;
    this.turned();
  }

  turned() {
    this.draw();
    this.onTurn();
  }

  /** With `auto`, show the ratio that the server has chosen. */
  applied(ratio) {
    if (!this.auto.checked) return;
    this.ratio = ratio;
    this.slider.value = ratio;
    this.draw(ratio);
  }

  draw(applied = null) {
    const automatic = this.auto.checked;
    const shown = automatic ? applied : this.ratio;
    by("dial").classList.toggle("automatic", automatic);
    by("ratio-value").textContent = shown === null ? "…" : percent(shown);
    by("ratio-meaning").textContent = automatic ? "removed, chosen by the server" : "of the tokens removed";
    this.slider.style.setProperty("--at", Math.min(1, Number(this.slider.value) / Number(this.slider.max)));
    this.slider.setAttribute("aria-valuetext", automatic ? `auto, now ${shown === null ? "unknown" : percent(shown)}` : percent(shown));
    for (const button of by("presets").children) {
      const here = !automatic && Math.abs(Number(button.dataset.ratio) - this.ratio) < 1e-6;
      button.setAttribute("aria-pressed", String(here));
    }
  }
}
