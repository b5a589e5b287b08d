// A bounded load on the server from this page, to see `auto` react.

import { classifyMany } from "./api.js";
import { by } from "./dom.js";
import { digits, ms, percent, THIN } from "./format.js";

const SECONDS = 10;
//: A browser opens six connections to a server; two are left for the page itself.
const LANES = 4;
const SIDE = 256;
//: Seconds before a refused client retries, if the server does not say.
const PAUSE_S = 1;

//: Outcome by status: the server is overloaded, or the rate limit of the key is reached.
const fates = { 503: "refused", 429: "limited" };
const fate = ({ status }) => fates[status] ?? "failed";

/** Runs a load of copies of the canvas when the form is submitted. */
export class Load {
  constructor(canvas, options) {
    this.canvas = canvas;
    this.options = options;
    this.running = null;
    this.target = null;
    by("load").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running) this.running.abort();
      else this.run(Number(by("clients").value));
    });
  }

  /** Take the latency target of the server, in milliseconds. */
  see({ target }) {
    if (target === this.target || this.running) return;
    this.target = target;
    const hint = document.getElementById("load-target"); // gone once a load was sent
    if (hint) hint.textContent = Number.isFinite(target) && target !== null ? ` It holds answers within ${ms(target)}, the target.` : "";
  }

  async run(clients) {
    this.running = new AbortController();
    this.sums = { answered: 0, refused: 0, limited: 0, failed: 0 };
    this.applied = [];
    this.took = [];
    this.show(true);
    const image = await small(this.canvas);
    const start = performance.now();
    const end = start + 1000 * SECONDS;
    const tick = setInterval(() => this.progress((performance.now() - start) / (1000 * SECONDS)), 100);
    const lane = Math.ceil(clients / LANES);
    await Promise.all(Array.from({ length: LANES }, () => this.lane(image, lane, end)));
    clearInterval(tick);
    const seconds = (performance.now() - start) / 1000;
    this.running = null;
    this.show(false);
    by("load-text").textContent = this.summary(seconds);
  }

  /** Send requests one after the other until the time is over. */
  async lane(image, copies, end) {
    const { signal } = this.running;
    while (!signal.aborted && performance.now() < end) {
      try {
        const results = await classifyMany(image, copies, { ...this.options(), reduction_ratio: "auto" }, signal);
        const later = this.count(results);
        if (later !== null) await pause(later, signal);
      } catch (error) {
        if (error.name === "AbortError") return;
        this.sums[fate(error)] += copies;
        await pause(error.retryAfter ?? PAUSE_S, signal);
      }
    }
  }

  /** Count the results of a request; return the seconds to wait if any image failed, or null. */
  count(results) {
    const answers = results.filter((result) => result.predictions);
    const others = results.filter((result) => !result.predictions);
    this.sums.answered += answers.length;
    this.applied.push(...answers.map((answer) => answer.reduction.applied));
    this.took.push(...answers.map((answer) => answer.timing_ms.total));
    for (const other of others) this.sums[fate(other)] += 1;
    if (!others.length) return null;
    return Math.max(...others.map(({ retry_after: seconds }) => seconds ?? PAUSE_S));
  }

  progress(share) {
    by("load-progress").value = Math.min(1, share);
    if (share > 1) by("load-text").textContent = "Waiting for the last responses…";
  }

  show(running) {
    by("load-progress").hidden = !running;
    by("load-button").textContent = running ? "Stop" : `Send load for ${SECONDS} s`;
    by("clients").disabled = running;
    if (running) by("load-text").textContent = "Sending…";
  }

  summary(seconds) {
    const { answered, refused, limited, failed } = this.sums;
    const parts = [`${answered} answered in ${digits(seconds)} s (${digits(answered / seconds)} images/s).`];
    if (answered) parts.push(`Auto removed ${spread(this.applied)} of the tokens.`, `${this.times()}.`);
    if (refused) parts.push(`${refused} refused: the server cannot answer this many images in flight in time, even at its fastest ratio. It refuses some and says when to retry, instead of answering all of them late.`);
    if (limited) parts.push(`${limited} refused: the rate limit of your API key is reached.`);
    if (failed) parts.push(`${failed} failed.`);
    return parts.join(" ");
  }

  /** Half of the answers, and nearly all, took so long on the server, against the target. */
  times() {
    const sorted = this.took.toSorted((a, b) => a - b);
    const at = (share) => ms(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
    const target = Number.isFinite(this.target) && this.target !== null ? `; the target is ${ms(this.target)}` : "";
    return `Half of the answers took at most ${at(0.5)}, 99${THIN}% at most ${at(0.99)}${target}`;
  }
}

/** The mean of some ratios, with the least and the most of the same ones where they differ. */
export function spread(ratios) {
  const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
  if (most - least < 0.005) return percent(mean);
  return `${percent(mean)} on average, ${percent(least)} to ${percent(most)}`;
}

/** Make a small JPEG of the photo, so that the load is on the model and not on the network. */
async function small(canvas) {
  const made = document.createElement("canvas");
  made.width = made.height = SIDE;
  made.getContext("2d").drawImage(canvas, 0, 0, SIDE, SIDE);
  return new Promise((resolve) => made.toBlob(resolve, "image/jpeg", 0.85));
}

/** Wait some seconds, or until the load is stopped. */
const pause = (seconds, signal) =>
  new Promise((resolve) => {
    setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", resolve, { once: true });
  });
