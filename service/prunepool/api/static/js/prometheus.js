// Parses Prometheus' text format, and compares two readings. Pure functions.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { n: "\n", "\\": "\\", '"': '"' };

const number = (text) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));

/**
 * Every sample of a reading.
 *
 * @param {string} text the body of `/metrics`.
 * @returns {Map<string, {labels: Record<string, string>, value: number}[]>} by the sample's name.
 */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const match = LINE.exec(line);
    if (!match) continue;
    const [, name, inside = "", value] = match;
    const labels = {};
    for (const [, key, raw] of inside.matchAll(LABEL)) {
      labels[key] = raw.replace(/\\(.)/g, (all, c) => ESCAPED[c] ?? all);
    }
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: number(value) });
  }
  return samples;
}

const matching = (samples, name, wanted) =>
  (samples.get(name) ?? []).filter(({ labels }) => Object.entries(wanted).every(([k, v]) => labels[k] === v));

/** The sum of the samples of a name whose labels are those wanted; null if there are none. */
export function total(samples, name, wanted = {}) {
  const found = matching(samples, name, wanted);
  return found.length ? found.reduce((sum, sample) => sum + sample.value, 0) : null;
}

/**
 * A histogram: its cumulative buckets by upper bound, its sum and count; summed over other labels.
 *
 * @returns {{buckets: [number, number][], sum: number, count: number}}
 */
export function histogram(samples, name, wanted = {}) {
  const buckets = new Map();
  for (const { labels, value } of matching(samples, `${name}_bucket`, wanted)) {
    const bound = number(labels.le);
    buckets.set(bound, (buckets.get(bound) ?? 0) + value);
  }
  return {
    buckets: [...buckets].sort(([a], [b]) => a - b),
    sum: total(samples, `${name}_sum`, wanted) ?? 0,
    count: total(samples, `${name}_count`, wanted) ?? 0,
  };
}

/** The difference of a histogram between two readings; after a restart, the later one. */
export function gained(before, after) {
  if (after.count < before.count) return after;
  const earlier = new Map(before.buckets);
  return {
    buckets: after.buckets.map(([bound, n]) => [bound, n - (earlier.get(bound) ?? 0)]),
    sum: after.sum - before.sum,
    count: after.count - before.count,
  };
}

/** The mean of a histogram; null if it is empty. */
export const mean = ({ sum, count }) => (count > 0 ? sum / count : null);

/**
 * A quantile, linear within its bucket, as PromQL's histogram_quantile has it; null if the histogram is empty.
 *
 * @param {number} q from 0 to 1.
 * @param {{buckets: [number, number][]}} histogram
 */
export function quantile(q, { buckets }) {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (!(all > 0)) return null;
  const rank = q * all;
  const i = buckets.findIndex(([, n]) => n >= rank);
  const [bound, n] = buckets[i];
  const [low, below] = i > 0 ? buckets[i - 1] : [0, 0];
  if (bound === Infinity) return low;
  return n === below ? bound : low + ((bound - low) * (rank - below)) / (n - below);
}
