// Connects the parts of the page, and sends a request whenever the photo or the dial changes.

import * as answers from "./answer.js";
import * as api from "./api.js";
import { showClasses } from "./classes.js";
import { cropOf } from "./crop.js";
import { Curve } from "./curve.js";
import { Dial } from "./dial.js";
import { announce, by } from "./dom.js";
import { framesOf } from "./frames.js";
import { Live } from "./live.js";
import { asked, remember } from "./link.js";
import { Load } from "./load.js";
import { RUNS, timeBoth } from "./measure.js";
import * as notice from "./notice.js";
import { Photos } from "./photos.js";
import { choose, describe, listModels, methodOf } from "./served.js";
import { Stages } from "./stages.js";
import { TokenMap } from "./token_map.js";

//: Number of the full model's scores to request, for the comparison.
const DENSE_ROWS = 100;
//: A smaller change of `auto` is not worth a new request.
const MOVED = 0.005;

const map = new TokenMap();
const stages = new Stages((index) => map.frame(index));
const dial = new Dial(() => ask());
const curve = new Curve((ratio) => dial.set(ratio));
const live = new Live(follow);
const options = () => ({ model: state.model.name });
const load = new Load(by("crop"), options);
const photos = new Photos(take);

//: What the page shows. `turn` counts choices of photo or model: responses of earlier turns are ignored.
const state = { model: null, photo: null, blob: null, answer: null, dense: null, turn: 0 };
let asking = false;
let askAgain = false;

/** Show a chosen photo, then classify it; null shows that there is none. */
async function take(photo) {
  state.turn += 1;
  const { turn } = state;
  Object.assign(state, { photo, blob: null, answer: null, dense: null });
  stages.clear();
  map.clear();
  if (photo === null) {
    map.photo(null, null);
    answers.clear("Choose a photo");
    return;
  }
  try {
    const blob = await photo.load();
    const bitmap = await createImageBitmap(blob).catch(() => null); // the server may decode what this browser cannot
    if (turn !== state.turn) return;
    state.blob = blob;
    const { input_size: size, crop_pct: share, crop_mode: mode } = state.model;
    map.photo(bitmap, bitmap && cropOf(bitmap.width, bitmap.height, size, share, mode));
    bitmap?.close();
    by("crop").setAttribute("aria-label", `${photo.name}, as the model sees it`);
  } catch {
    notice.show(new api.Problem({ title: "The photo cannot be read", detail: photo.name }), () => take(photo));
    return;
  }
  await ask();
}

/**
 * Classify the photo at the dial; while a request is in flight, only the newest change is kept.
 *
 * @param {(problem: api.Problem) => void} onProblem called if the request fails.
 */
async function ask(onProblem = fail) {
  if (state.model) remember({ model: state.model.name, sample: state.photo?.sample, ratio: dial.value });
  if (!state.blob || !state.model) return;
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  const pending = setTimeout(() => (by("pending").hidden = false), 250);
  do {
    askAgain = false;
    await once().catch(onProblem);
  } while (askAgain);
  clearTimeout(pending);
  by("pending").hidden = true;
  asking = false;
}

async function once() {
  const { turn, blob } = state;
  const first = state.answer === null;
  const answer = await api.classify(blob, { ...options(), reduction_ratio: dial.value, explain: true });
  if (turn !== state.turn) return;
  state.answer = answer;
  const frames = framesOf(answer.token_map);
  map.show(frames, answer.token_map.grid);
  stages.show(frames, methodOf(state.model));
  if (first) stages.play();
  dial.applied(answer.reduction.applied);
  curve.point(answer.reduction.applied, answer.reduction.gmacs);
  notice.hide();
  draw();
  if (state.dense || askAgain) {
    announce(answers.sentence(answer, state.dense));
    return;
  }
  const top = Math.min(state.model.labels.length, DENSE_ROWS);
  const dense = await api.classifyDense(blob, { ...options(), top_k: top });
  if (turn !== state.turn) return;
  state.dense = dense;
  draw();
  announce(answers.sentence(answer, dense));
}

function draw(timed = null) {
  answers.show(state.answer, state.dense, timed);
  by("measure").disabled = !state.dense;
}

function fail(problem) {
  if (!(problem instanceof api.Problem)) throw problem;
  notice.show(problem, () => ask());
  if (problem.status >= 400 && problem.status < 500) {
    state.answer = null;
    answers.clear();
    stages.clear();
    map.clear();
    by("measure").disabled = true;
  }
}

/** Handle new metrics: with `auto`, classify again if the ratio has changed. */
function follow(figures) {
  load.see(figures);
  const shown = state.answer?.reduction.applied;
  const moved = figures.auto !== null && shown !== undefined && Math.abs(figures.auto - shown) > MOVED;
  if (dial.value === "auto" && moved && !asking) ask(unlessBusy);
}

/** Ignore a busy server, since the user did not start this request; the next metrics start another. */
function unlessBusy(problem) {
  if (problem.status !== 503 && problem.status !== 429) fail(problem);
}

async function measure() {
  const button = by("measure");
  const words = button.textContent;
  const { turn, blob, answer } = state;
  button.disabled = true;
  try {
    const ratio = answer.reduction.applied;
    const timed = await timeBoth(blob, ratio, options(), (run) => (button.textContent = `${run} of ${RUNS}`));
    if (turn === state.turn && answer === state.answer) draw(timed);
  } catch (problem) {
    fail(problem);
  } finally {
    button.textContent = words;
    button.disabled = !state.dense;
  }
}

/** Switch to another model. */
async function followModel(name) {
  const model = await api.model(name);
  state.model = model;
  describe(model);
  showClasses(model);
  dial.configure(model);
  curve.follow(model);
  live.follow(model.name);
}

async function start() {
  try {
    const { default: usual, models } = await api.models();
    const link = asked();
    const first = models.some(({ name }) => name === link.model) ? link.model : usual;
    choose(models, first, async (name) => {
      await followModel(name);
      photos.offer(state.model.labels);
    });
    listModels(models, usual);
    await followModel(first);
    notice.hide();
    if (link.ratio !== null) dial.start(link.ratio);
    photos.offer(state.model.labels, link.sample);
  } catch (problem) {
    if (!(problem instanceof api.Problem)) throw problem;
    notice.show(problem, start);
    return;
  }
  by("measure").onclick = measure;
}

start();
