// Converts the server's token map to the frames after each stage. Pure functions on plain data.

/**
 * The tokens after a stage.
 *
 * @typedef {object} Frame
 * @property {?number} block the reducing block, or null before the first.
 * @property {?string} action "pool" or "prune".
 * @property {?number} variance of the scores; it decided the action.
 * @property {number[][]} groups the patches in each remaining token.
 * @property {number} gone number of tokens removed by this block.
 * @property {Set<number>} pruned patches pruned so far.
 * @property {Set<number>} prunedNow patches pruned by this block.
 */

/**
 * One frame before the first stage and one after each.
 *
 * @param {{grid: number[], stages: object[]}} map the server's `token_map`.
 * @returns {Frame[]}
 */
export function framesOf(map) {
  const patches = map.grid[0] * map.grid[1];
  const first = {
    block: null,
    action: null,
    variance: null,
    groups: Array.from({ length: patches }, (_, i) => [i]),
    gone: 0,
    pruned: new Set(),
    prunedNow: new Set(),
  };
  const frames = [first];
  for (const stage of map.stages) {
    const before = frames.at(-1);
    frames.push({
      block: stage.block,
      action: stage.action.startsWith("prun") ? "prune" : "pool",
      variance: stage.variance,
      groups: stage.groups.map((group) => [...group].sort((a, b) => a - b)),
      gone: before.groups.length - stage.groups.length,
      pruned: new Set([...before.pruned, ...stage.pruned]),
      prunedNow: new Set(stage.pruned),
    });
  }
  return frames;
}

/** Count the patches that are kept alone, pooled with others, and pruned so far. */
export function tally(frame) {
  const pooled = frame.groups.filter((group) => group.length > 1);
  return {
    kept: frame.groups.length - pooled.length,
    pooledPatches: pooled.reduce((sum, group) => sum + group.length, 0),
    pooledTokens: pooled.length,
    pruned: frame.pruned.size,
    prunedNow: frame.prunedNow.size,
  };
}

/** The group that a patch is in after a frame; null if it was pruned. */
export const groupOf = (frame, patch) => frame.groups.find((group) => group.includes(patch)) ?? null;

/**
 * The events of a patch, frame by frame.
 *
 * @returns {{event: "pooled"|"pruned", block: number, others: number}[]}
 */
export function history(frames, patch) {
  const events = [];
  let size = 1;
  for (const frame of frames.slice(1)) {
    const group = groupOf(frame, patch);
    if (!group) {
      if (frame.prunedNow.has(patch)) events.push({ event: "pruned", block: frame.block, others: size - 1 });
      break;
    }
    if (group.length > size) events.push({ event: "pooled", block: frame.block, others: group.length - 1 });
    size = group.length;
  }
  return events;
}

/**
 * The hue of a group: that of its first patch, so that it stays while the group grows; unlike its neighbours'.
 *
 * @param {number[]} group its patches.
 * @param {number} few how many hues there are; 0 for any number.
 */
export const hueOf = (group, few = 0) => (few ? (group[0] % few) * (360 / few) + 20 : (group[0] * 137.508) % 360);
