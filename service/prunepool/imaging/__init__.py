"""Decode an image file into the uint8 RGB crop that a model takes.

Three steps, one file each: `containers` opens an untrusted file within limits, `pixels` converts what it holds to
RGB, `geometry` resizes and crops. `decoding` combines them. Normalisation happens where the model runs.

For an upright image without transparency the crop is that of timm's evaluation transform
(`create_transform(..., is_training=False)`) in each of its crop modes, which covers the image processors of Hugging
Face's transformers too: about one value in 300 differs by one level of 255, and none by
more than two, unless a large JPEG is decoded at a reduced scale (`draft`). With Pillow 13, in a photo more
than about twice as tall as wide, fewer than one value in 10,000 differ by more than two, none by more than 12.
Where timm defines nothing, or nothing that a person looking at the picture would expect, prunepool does this:

- **Orientation** in EXIF (or XMP) is applied. Unreadable metadata means upright.
- **Transparency** is composited over white, the background that most such pictures are made for. Dropping the
  alpha channel would show the model colours that nobody sees.
- **Colour profiles** are ignored, as in training. CMYK in a JPEG is read as Adobe writes it (inverted).
- **16-bit** grey is scaled from its full range, and 12-bit from its own; nothing is clipped. Other integers and
  floats have no agreed range: floats within 0…1 are scaled from that, all others from the smallest to the largest
  value in the image.
- **Animations and multi-page files** give their first frame; what it does not cover of the canvas is white.
- **Very long strips** (more than 8:1) are cut around their centre before resizing: the centre crop shows no more of
  them. Squashed, or between borders, they are shown whole.
"""

from __future__ import annotations

from prunepool.imaging.containers import ImageLimits
from prunepool.imaging.decoding import decode, preprocess_image
from prunepool.imaging.geometry import Preprocess

__all__ = ["ImageLimits", "Preprocess", "decode", "preprocess_image"]
