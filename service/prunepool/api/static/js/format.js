// Figures as people read them. A thin space keeps a number and its unit on one line.

export const THIN = "\u202f";

/** 0.755 → "75.5 %"; without a needless ".0". */
export const percent = (share) => `${(100 * share).toFixed(1).replace(/\.0$/, "")}${THIN}%`;

/** 0.363 → "36 %". */
export const wholePercent = (share) => `${Math.round(100 * share)}${THIN}%`;

/** A probability; never rounded to certainty. */
export function score(value) {
  if (value > 0.9995 && value < 1) return `>${THIN}99.9${THIN}%`;
  if (value < 0.0005) return `<${THIN}0.1${THIN}%`;
  return `${(100 * value).toFixed(1)}${THIN}%`;
}

/** Milliseconds with as many digits as mean something. */
export const ms = (value) => `${digits(value)}${THIN}ms`;

/** Three digits at most, none of them noise. */
export function digits(value) {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return value.toFixed(value >= 10 ? 1 : 2).replace(/\.0+$|(\.\d*[1-9])0+$/, "$1");
}

/** 2.1e-4 → "2.1 × 10⁻⁴". */
export function scientific(value) {
  const [mantissa, exponent] = value.toExponential(1).split("e");
  const raised = [...exponent.replace("+", "")].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");
  return `${mantissa}${THIN}×${THIN}10${raised}`;
}

/** 1 → "1 patch", 5 → "5 patches". */
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
