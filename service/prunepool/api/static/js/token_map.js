// The input of the model, with the state of each patch drawn over it.

import { by, svg } from "./dom.js";
import { count } from "./format.js";
import { groupOf, history, hueOf } from "./frames.js";
import { outline } from "./outline.js";

//: With more columns than this, groups are outlined in few colours, or the map turns to confetti.
const FINE = 16;
const FEW_HUES = 4;
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Draws frames over a photo's crop, and describes the patch under the pointer. */
export class TokenMap {
  constructor() {
    this.root = by("map");
    this.canvas = by("crop");
    this.over = by("patches");
    this.description = by("patch");
    this.hint = [...this.description.childNodes];
    this.frames = [];
    this.at = 0;
    this.pointed = null;
    this.listen();
  }

  /** Show the part of a photo that the model sees; without a bitmap, an empty square. */
  photo(bitmap, crop) {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, width, height);
    if (bitmap) context.drawImage(bitmap, crop.x, crop.y, crop.width, crop.height, 0, 0, width, height);
    this.colours = null;
    this.clear();
  }

  /** Clear the patches. */
  clear() {
    this.frames = [];
    this.over.replaceChildren();
    this.point(null);
  }

  /** Set the frames of an answer; `frame` shows one of them. */
  show(frames, [rows, columns]) {
    this.frames = frames;
    this.rows = rows;
    this.columns = columns;
    this.colours ??= this.meanColours();
    this.over.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    this.root.classList.toggle("fine", columns > FINE);
    this.cells = Array.from({ length: rows * columns }, (_, i) =>
      svg("rect", { x: i % columns, y: Math.floor(i / columns), width: 1, height: 1, class: "cell" }),
    );
    this.struck = svg("path", { class: "struck" });
    this.struckNow = svg("path", { class: "struck now" });
    this.groups = svg("g", { class: "groups" });
    this.spot = svg("path", { class: "spot" });
    this.over.replaceChildren(svg("g", {}, ...this.cells), this.struck, this.struckNow, this.groups, this.spot);
  }

  /** Show one frame. */
  frame(index) {
    this.at = index;
    const frame = this.frames[index];
    const groups = new Map(frame.groups.flatMap((group) => group.map((patch) => [patch, group])));
    this.cells.forEach((cell, patch) => {
      const group = groups.get(patch);
      cell.setAttribute("class", `cell ${group ? (group.length > 1 ? "pooled" : "kept") : "pruned"}`);
      cell.setAttribute("fill", this.fill(group ?? [patch]));
    });
    this.struck.setAttribute("d", strokes(frame.pruned.difference(frame.prunedNow), this.columns));
    this.struckNow.setAttribute("d", strokes(frame.prunedNow, this.columns));
    const pooled = frame.groups.filter((group) => group.length > 1);
    this.groups.replaceChildren(...pooled.flatMap((group) => this.drawn(group)));
    this.point(this.pointed);
  }

  drawn(group) {
    const d = outline(group, this.columns);
    const hue = hueOf(group, this.columns > FINE ? FEW_HUES : 0).toFixed(0);
    const ring = { d, fill: `hsl(${hue} 85% 56%)`, stroke: `hsl(${hue} 88% 66%)`, class: "group" };
    return [svg("path", { d, class: "halo" }), svg("path", ring)];
  }

  /** The mean colour of a token's patches. */
  fill(group) {
    const mixed = [0, 1, 2].map((i) => group.reduce((sum, patch) => sum + this.colours[patch][i], 0) / group.length);
    return `rgb(${mixed.map(Math.round).join(" ")})`;
  }

  meanColours() {
    const { width, height } = this.canvas;
    const { data } = this.canvas.getContext("2d").getImageData(0, 0, width, height);
    const sums = Array.from({ length: this.rows * this.columns }, () => [0, 0, 0, 0]);
    for (let y = 0; y < height; y += 1) {
      const row = Math.floor((y * this.rows) / height);
      for (let x = 0; x < width; x += 1) {
        const sum = sums[row * this.columns + Math.floor((x * this.columns) / width)];
        const i = 4 * (y * width + x);
        sum[0] += data[i];
        sum[1] += data[i + 1];
        sum[2] += data[i + 2];
        sum[3] += 1;
      }
    }
    return sums.map(([r, g, b, n]) => [r / n, g / n, b / n]);
  }

  listen() {
    this.over.addEventListener("pointermove", (event) => this.point(this.under(event)));
    this.over.addEventListener("pointerdown", (event) => this.point(this.under(event)));
    this.over.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.point(null);
    });
    this.over.addEventListener("keydown", (event) => this.walk(event));
    by("view").addEventListener("change", (event) => (this.root.dataset.view = event.target.value));
  }

  under(event) {
    if (!this.frames.length) return null;
    const box = this.over.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return null;
    return row * this.columns + column;
  }

  walk(event) {
    if (event.key === "Escape") this.point(null);
    const step = ARROWS[event.key];
    if (!step || !this.frames.length || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (this.pointed === null) {
      this.point(Math.floor(this.rows / 2) * this.columns + Math.floor(this.columns / 2));
      return;
    }
    const row = Math.floor(this.pointed / this.columns) + step[0];
    const column = (this.pointed % this.columns) + step[1];
    if (row < 0 || column < 0 || row >= this.rows || column >= this.columns) return;
    this.point(row * this.columns + column);
  }

  /** Mark the group of a patch, and describe its way through the model. */
  point(patch) {
    this.pointed = patch;
    if (patch === null || !this.frames.length) {
      this.spot?.setAttribute("d", "");
      this.description.replaceChildren(...this.hint);
      return;
    }
    const group = groupOf(this.frames[this.at], patch) ?? [patch];
    this.spot.setAttribute("d", outline(group, this.columns, 0));
    this.description.textContent = this.story(patch);
  }

  story(patch) {
    const place = `Row ${Math.floor(patch / this.columns) + 1}, column ${(patch % this.columns) + 1}`;
    const events = history(this.frames, patch).map(({ event, block, others }) => {
      const company = others > 0 ? ` with ${count(others, "other")}` : "";
      return `${event}${company} at block ${block}`;
    });
    return `${place}: ${events.length ? events.join(", then ") : "kept to the end, on its own"}.`;
  }
}

/** Two strokes through each pruned patch. */
function strokes(patches, columns) {
  return [...patches]
    .map((patch) => {
      const x = patch % columns;
      const y = Math.floor(patch / columns);
      return `M${x} ${y + 0.5}L${x + 0.5} ${y}M${x} ${y + 1}L${x + 1} ${y}M${x + 0.5} ${y + 1}L${x + 1} ${y + 0.5}`;
    })
    .join("");
}
