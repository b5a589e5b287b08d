// Computes the part of a photo that the model sees, to the pixel as the server does.

//: Before resizing, a longer photo is cropped to this multiple of its short side, as on the server with `center`.
const MAX_ASPECT = 8;

/** Round half to even, as Python does. */
function rounded(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * The square of an upright photo that becomes the model's input, in the photo's pixels.
 *
 * @param {number} width of the photo.
 * @param {number} height of the photo.
 * @param {number} size of the model's input, in pixels a side.
 * @param {number} cropPct the input's share of the resized side.
 * @param {"center" | "squash" | "border"} mode which side is resized; with `border` the square may reach beyond the photo.
 * @returns {{x: number, y: number, width: number, height: number}}
 */
export function cropOf(width, height, size, cropPct, mode) {
  const side = Math.floor(size / cropPct);
  if (mode === "squash") return placed(width, height, size, side, side);
  if (mode === "border") {
    const ratio = Math.max(width / side, height / side);
    return placed(width, height, size, Math.max(1, rounded(width / ratio)), Math.max(1, rounded(height / ratio)));
  }
  const longest = MAX_ASPECT * Math.min(width, height);
  const cutX = Math.max(0, Math.floor((width - longest) / 2));
  const cutY = Math.max(0, Math.floor((height - longest) / 2));
  const w = width - 2 * cutX;
  const h = height - 2 * cutY;
  const resizedW = w <= h ? side : Math.trunc((side * w) / h);
  const resizedH = w <= h ? Math.trunc((side * h) / w) : side;
  const crop = placed(w, h, size, resizedW, resizedH);
  return { ...crop, x: cutX + crop.x, y: cutY + crop.y };
}

/** The centre of a photo once it is resized, in pixels of the photo. */
function placed(width, height, size, resizedW, resizedH) {
  const scaleX = width / resizedW;
  const scaleY = height / resizedH;
  return {
    x: margin(resizedW - size) * scaleX,
    y: margin(resizedH - size) * scaleY,
    width: size * scaleX,
    height: size * scaleY,
  };
}

/** Where the square begins, of so many spare pixels; borders, where there are fewer than none, are rounded down. */
function margin(spare) {
  return spare < 0 ? -Math.floor(-spare / 2) : rounded(spare / 2);
}
