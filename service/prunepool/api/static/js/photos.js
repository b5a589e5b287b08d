// The sources of photos: samples, file dialog, camera, drag and drop, clipboard.

import { by, html } from "./dom.js";

const SAMPLES = [
  ["golf_ball", "golf ball"],
  ["parachute", "parachute"],
  ["church", "church"],
  ["gas_pump", "gas pump"],
];
//: Largest number of the user's photos; new ones replace the oldest.
const MOST_OWN = 24;

let made = 0;

/** A photo to choose; its `blob` is fetched when it is chosen. */
class Photo {
  constructor(name, url, own, blob = null, sample = null) {
    Object.assign(this, { id: (made += 1), name, url, own, blob, sample });
  }

  async load() {
    this.blob ??= await (await fetch(this.url)).blob();
    return this.blob;
  }
}

/** The row of photos; calls `onChosen` with each chosen one. */
export class Photos {
  constructor(onChosen) {
    this.list = by("photos");
    this.onChosen = onChosen;
    this.samples = SAMPLES.map(([file, name]) => new Photo(name, `static/samples/${file}.jpg`, false, null, file));
    this.photos = [];
    this.chosen = null;
    this.listen();
  }

  /**
   * Offer the samples that a model knows, and choose the photo that was chosen, one that was asked for, or the first.
   *
   * @param {string[]} labels of the model.
   * @param {?string} wanted a sample.
   */
  offer(labels, wanted = null) {
    const known = new Set(labels.map((label) => label.toLowerCase()));
    const samples = this.samples.filter((photo) => known.has(photo.name));
    this.photos = [...this.photos.filter((photo) => photo.own), ...samples];
    this.draw();
    const asked = this.photos.find((photo) => photo.sample !== null && photo.sample === wanted);
    const kept = this.photos.includes(this.chosen) ? this.chosen : null;
    const next = asked ?? kept ?? this.photos[0] ?? null;
    if (next) this.choose(next);
    else {
      this.chosen = null;
      this.onChosen(null);
    }
  }

  choose(photo) {
    this.chosen = photo;
    for (const button of this.list.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.photo) === photo.id));
    }
    this.onChosen(photo);
  }

  /** Insert files at the front, and choose the first. */
  add(files) {
    const added = [...files].map((file) => new Photo(file.name || "photo", URL.createObjectURL(file), true, file));
    if (!added.length) return;
    const own = [...added, ...this.photos.filter((photo) => photo.own)];
    own.splice(MOST_OWN).forEach((photo) => URL.revokeObjectURL(photo.url));
    this.photos = [...own, ...this.photos.filter((photo) => !photo.own)];
    this.draw();
    this.choose(added[0]);
  }

  draw() {
    this.list.replaceChildren(...this.photos.map((photo) => html("li", {}, this.button(photo))));
  }

  button(photo) {
    const image = html("img", { src: photo.url, alt: "", width: 64, height: 64, draggable: "false" });
    image.addEventListener("error", () => image.replaceWith(html("span", { class: "no-image" }, "?")));
    const label = photo.own ? photo.name : `Sample: ${photo.name}`;
    const attributes = { type: "button", "data-photo": photo.id, "aria-pressed": "false", title: label };
    const button = html("button", { ...attributes, "aria-label": label }, image);
    button.addEventListener("click", () => this.choose(photo));
    return button;
  }

  listen() {
    const input = by("file");
    input.addEventListener("change", () => {
      this.add(input.files);
      input.value = ""; // the same file may be chosen again
    });
    document.addEventListener("paste", (event) => {
      const files = event.clipboardData?.files;
      if (files?.length) this.add(files);
    });
    this.listenToDrops();
  }

  listenToDrops() {
    const veil = by("drop");
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    let depth = 0; // number of nested elements under the pointer
    document.addEventListener("dragenter", (event) => {
      if (!carriesFiles(event)) return;
      depth += 1;
      veil.hidden = false;
    });
    document.addEventListener("dragleave", (event) => {
      if (!carriesFiles(event)) return;
      depth = Math.max(0, depth - 1);
      veil.hidden = depth === 0;
    });
    document.addEventListener("dragover", (event) => {
      if (carriesFiles(event)) event.preventDefault();
    });
    document.addEventListener("drop", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      depth = 0;
      veil.hidden = true;
      this.add(event.dataTransfer.files);
    });
  }
}
