// Computes the part of a photo that the model sees, to the pixel as the server does.

//: Before resizing, a longer photo is cropped to this multiple of its short side, as on the server.
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
 * @param {number} cropPct the input's share of the resized short side.
 * @returns {{x: number, y: number, width: number, height: number}}
 */
export function cropOf(width, height, size, cropPct) {
  const longest = MAX_ASPECT * Math.min(width, height);
  const cutX = Math.max(0, Math.floor((width - longest) / 2));
  const cutY = Math.max(0, Math.floor((height - longest) / 2));
  const w = width - 2 * cutX;
  const h = height - 2 * cutY;
  const short = Math.floor(size / cropPct);
  const resizedW = w <= h ? short : Math.trunc((short * w) / h);
  const resizedH = w <= h ? Math.trunc((short * h) / w) : short;
  const scaleX = w / resizedW;
  const scaleY = h / resizedH;
  return {
    x: cutX + rounded((resizedW - size) / 2) * scaleX,
    y: cutY + rounded((resizedH - size) / 2) * scaleY,
    width: size * scaleX,
    height: size * scaleY,
  };
}
