"""Encoded bytes in, the uint8 RGB crop that a model wants to see out.

Three steps, one file each: `containers` opens an untrusted file within limits, `pixels` makes RGB of whatever
it holds, `geometry` resizes and crops; `decoding` puts them together. Normalisation is not here: it is done
where the model runs.

For an upright image without transparency the crop is bit for bit that of timm's evaluation transform
(`create_transform(..., is_training=False)`), unless a large JPEG is decoded at a reduced scale (`draft`).
Where timm has no answer, or none that a person looking at the picture would give, these were chosen:

- **Orientation** in EXIF (or XMP) is applied. Metadata that cannot be read means upright.
- **Transparency** is composited over white, the page most such pictures are made for. Dropping the alpha
  channel would show the model colours that nobody sees.
- **Colour profiles** are ignored, as in training. CMYK in a JPEG is read as Adobe writes it (inverted).
- **16-bit** grey is scaled from its full range (12-bit from its own), never clipped. Integers of other
  widths and floats have no agreed range: floats within 0…1 are scaled from that, all others from the least
  to the greatest value in the image.
- **Animations and multi-page files** give their first frame.
- **Very long strips** (more than 8:1) are cut around their middle before resizing: the crop sees no more.
"""

from __future__ import annotations

from prunepool.imaging.containers import ImageLimits
from prunepool.imaging.decoding import decode, preprocess_image
from prunepool.imaging.geometry import Preprocess

__all__ = ["ImageLimits", "Preprocess", "decode", "preprocess_image"]
