// Computes the figures of the tiles from readings of /metrics. Pure functions.

import { gained, histogram, mean, parse, quantile, total } from "./prometheus.js";

//: Window of rates and percentiles, in seconds.
const WINDOW_S = 5;

/**
 * Extract the needed values of a reading.
 *
 * @param {string} text the body of `/metrics`.
 * @param {string} model the model's name.
 * @param {number} seconds when it was read.
 * @param {number} aside how many images this page has asked for at ratio 0, only to compare with.
 */
export function reading(text, model, seconds, aside = 0) {
  const samples = parse(text);
  const of = (name, labels = {}) => histogram(samples, name, { model, ...labels });
  const gauge = (name) => total(samples, name, { model });
  return {
    seconds,
    aside,
    answered: total(samples, "prunepool_images_total", { model }) ?? 0,
    latency: of("prunepool_request_duration_seconds", { stage: "total" }),
    batch: of("prunepool_batch_size"),
    applied: of("prunepool_applied_reduction_ratio"),
    queue: gauge("prunepool_queue_requests"),
    auto: gauge("prunepool_auto_reduction_ratio"),
    target: gauge("prunepool_target_latency_seconds"),
    up: gauge("prunepool_engine_up"),
  };
}

/**
 * The figures at the newest of some readings.
 *
 * @param {object[]} readings the oldest first.
 */
export function figures(readings) {
  const now = readings.at(-1);
  const then = readings.findLast((earlier) => now.seconds - earlier.seconds >= WINDOW_S - 0.5) ?? readings[0];
  const elapsed = now.seconds - then.seconds;
  const latency = gained(then.latency, now.latency);
  const answered = now.answered >= then.answered ? now.answered - then.answered : now.answered;
  return {
    throughput: elapsed > 0 ? answered / elapsed : null,
    p50: inMs(quantile(0.5, latency)),
    p99: inMs(quantile(0.99, latency)),
    batch: mean(gained(then.batch, now.batch)),
    queue: now.queue,
    applied: mean(without(gained(then.applied, now.applied), now.aside - then.aside)),
    auto: now.auto,
    target: inMs(now.target),
    up: now.up,
  };
}

/** A histogram without as many values of 0. */
const without = (histogram, zeros) => ({ ...histogram, count: Math.max(0, histogram.count - zeros) });

const inMs = (seconds) => (seconds === null ? null : 1000 * seconds);
