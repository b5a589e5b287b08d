// Times the dial and the full model alternately, and takes medians.

import { classify, classifyDense } from "./api.js";

export const RUNS = 10;

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/**
 * Median milliseconds in the model, at a ratio and dense.
 *
 * @param {Blob} photo the photo.
 * @param {number} ratio of the dial.
 * @param {object} options further ones for each request.
 * @param {(run: number) => void} onRun called after each pair.
 * @returns {Promise<{dial: number, dense: number, runs: number}>}
 */
export async function timeBoth(photo, ratio, options, onRun) {
  const times = { dial: [], dense: [] };
  for (let run = 1; run <= RUNS; run += 1) {
    times.dial.push((await classify(photo, { ...options, reduction_ratio: ratio })).timing_ms.inference);
    times.dense.push((await classifyDense(photo, options)).timing_ms.inference);
    onRun(run);
  }
  return { dial: median(times.dial), dense: median(times.dense), runs: RUNS };
}
