// The slider over the stages, their descriptions, and the animation.

import { by, calm, html } from "./dom.js";
import { count, scientific } from "./format.js";
import { tally } from "./frames.js";

//: Longest time of a stage, and of all stages together.
const STEP_MS = 900;
const PLAY_MS = 3600;
//: With more frames, their names are only numbers, so that they fit on a phone.
const MOST_NAMED = 5;

/** Selects the frame to show. Stays at the last stage while the dial is turned, unless the user moves it. */
export class Stages {
  constructor(onFrame) {
    this.onFrame = onFrame;
    this.slider = by("stage");
    this.playing = null;
    this.frames = [];
    this.method = null;
    this.slider.addEventListener("input", () => {
      this.stop();
      this.to(this.slider.valueAsNumber);
    });
    by("play").addEventListener("click", () => (this.playing ? this.stop() : this.play()));
  }

  clear() {
    this.stop();
    this.frames = [];
    this.slider.disabled = true;
    by("play").disabled = true;
    for (const id of ["stage-names", "stage-text", "legend"]) by(id).replaceChildren();
  }

  /**
   * Take the frames of a new answer.
   *
   * @param {import("./frames.js").Frame[]} frames
   * @param {string} the reduction method, which explains the action of a block.
   */
  show(frames, method) {
    this.method = method;
    const last = Math.max(0, this.frames.length - 1);
    const atEnd = !this.frames.length || this.slider.valueAsNumber >= last || frames.length !== this.frames.length;
    const place = this.playing || !atEnd ? this.slider.valueAsNumber : frames.length - 1;
    this.frames = frames;
    this.slider.max = Math.max(1, frames.length - 1);
    this.slider.disabled = frames.length < 2;
    by("play").disabled = frames.length < 2;
    by("stage-names").replaceChildren(...frames.map((frame) => html("li", {}, this.name(frame))));
    this.to(Math.min(place, frames.length - 1));
  }

  name(frame) {
    if (frame.block === null) return "all";
    return this.frames.length > MOST_NAMED ? String(frame.block) : `block ${frame.block}`;
  }

  to(index) {
    const frame = this.frames[index];
    this.slider.value = index;
    this.slider.style.setProperty("--at", this.frames.length > 1 ? index / (this.frames.length - 1) : 0);
    this.slider.setAttribute("aria-valuetext", index ? `after block ${frame.block}` : "all patches");
    by("stage-text").replaceChildren(...this.words(index));
    by("legend").replaceChildren(...legend(frame));
    [...by("stage-names").children].forEach((item, i) => item.classList.toggle("here", i === index));
    this.onFrame(index);
  }

  words(index) {
    const frame = this.frames[index];
    if (this.frames.length === 1) return [`The full model: all ${frame.groups.length} patch tokens go through every block.`];
    if (index === 0) return [`Before block ${this.frames[1].block}: all ${frame.groups.length} patches are a token each.`];
    const before = this.frames[index - 1].groups.length;
    // Only PPT decides between pruning and pooling, by the variance of the scores.
    const why = (reason) => (this.method === "ppt" ? `: ${reason} (score variance ${scientific(frame.variance)}).` : ".");
    if (frame.action === "pool") {
      const verb = html("em", { class: "pooled" }, "pooled");
      const into = this.method === "fuse" ? "more important ones like them" : "the ones most like them";
      return [`Block ${frame.block} `, verb, ` ${frame.gone} of ${before} tokens into ${into}${why("the scores are similar")}`];
    }
    const verb = html("em", { class: "pruned" }, "pruned");
    const patches = count(frame.prunedNow.size, "patch", "patches");
    return [`Block ${frame.block} `, verb, ` ${frame.gone} of ${before} tokens, ${patches} in all${why("the scores differ clearly")}`];
  }

  /** Show the frames one after the other. */
  play() {
    this.stop();
    if (this.frames.length < 2) return;
    if (calm()) {
      this.to(this.frames.length - 1);
      return;
    }
    by("play").dataset.playing = "";
    this.to(0);
    this.playing = setInterval(() => {
      const next = this.slider.valueAsNumber + 1;
      if (next < this.frames.length) this.to(next);
      if (next >= this.frames.length - 1) this.stop();
    }, Math.min(STEP_MS, PLAY_MS / (this.frames.length - 1)));
  }

  stop() {
    clearInterval(this.playing);
    this.playing = null;
    delete by("play").dataset.playing;
  }
}

function legend(frame) {
  const { kept, pooledPatches, pooledTokens, pruned, prunedNow } = tally(frame);
  const entry = (name, text) => html("li", {}, html("i", { class: `swatch ${name}` }), text);
  const entries = [entry("kept", `${kept} kept`)];
  if (pooledTokens) {
    const tokens = count(pooledTokens, "token");
    entries.push(entry("pooled", `${pooledPatches} pooled into ${tokens}`));
  }
  if (prunedNow) entries.push(entry("pruned-now", `${prunedNow} pruned here`));
  if (pruned > prunedNow) entries.push(entry("pruned", `${pruned - prunedNow} pruned before`));
  return entries;
}
