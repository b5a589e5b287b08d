"""TIFF files as Pillow reads them, within limits, and in either byte order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, TiffTags
from PIL.TiffImagePlugin import TiffImageFile

from prunepool.errors import ImageUndecodable, UnsupportedMediaType

_NUMBERS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
BITS = _NUMBERS["BitsPerSample"]
PHOTOMETRIC = _NUMBERS["PhotometricInterpretation"]
SAMPLE_FORMAT = _NUMBERS["SampleFormat"]
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
UNSIGNED, SIGNED = (1,), (2,)

_PLANAR = _NUMBERS["PlanarConfiguration"]
_SEPARATE_PLANES = 2
_BYTES = (TiffTags.BYTE, TiffTags.ASCII, TiffTags.UNDEFINED)
#: By Pillow's names. Excluded are fax (libtiff writes a line to stderr for each broken row) and compressions that
#: are not used for photos.
_COMPRESSIONS = (
    "raw",
    "packbits",
    "tiff_lzw",
    "tiff_deflate",
    "tiff_adobe_deflate",
    "jpeg",
    "tiff_jpeg",
    "zstd",
)
#: How Pillow calls big-endian values, and how it should call them behind libtiff, which returns native ones.
_NATIVE = {"I;16BS": "I;16S", "I;32BS": "I;32S", "F;32BF": "F;32F"} if sys.byteorder == "little" else {}


class BoundedTiffImageFile(TiffImageFile):
    """A TIFF with a limit on the length of its tags, and without its nested directories.

    Attributes:
        max_numbers: bytes of one tag of numbers, such as the offsets of its strips; each becomes a Python object.
    """

    max_numbers = 1 << 20

    def _setup(self) -> None:
        for tag, value in self.tag_v2._tagdata.items():
            if self.tag_v2.tagtype[tag] not in _BYTES and len(value) > self.max_numbers:
                raise ImageUndecodable(
                    f"tag {tag} of the TIFF image has {len(value):,} bytes of numbers; "
                    f"at most {self.max_numbers:,} are read"
                )
        with self._in_a_form_that_pillow_knows():
            try:
                super()._setup()
            except SyntaxError as error:
                raise UnsupportedMediaType(
                    f"this form of TIFF is not served ({error}); send 8-bit RGB", found="TIFF"
                ) from error
        if (compression := self.info["compression"]) not in _COMPRESSIONS:
            raise UnsupportedMediaType(
                f"TIFF compressed by {compression} is not served; these are: {', '.join(_COMPRESSIONS)}",
                found="TIFF",
            )
        self.tile = [
            tile._replace(args=(self._raw_mode(tile.args[0]), *tile.args[1:]))
            for tile in self.tile
            if isinstance(tile.args, tuple)
        ]

    def _raw_mode(self, stated: str) -> str:
        """The layout of pixels in the file, where Pillow mistakes it."""
        if self.use_load_libtiff:
            return _NATIVE.get(stated, stated)
        if len(stated) == 1 and self._separate_planes() and self.tag_v2.get(BITS, (8,))[0] == 16:
            return f"{stated};16{'B' if self.tag_v2.prefix == b'MM' else 'L'}"  # one of several planes
        return stated

    def _separate_planes(self) -> bool:
        return self.tag_v2.get(_PLANAR) == _SEPARATE_PLANES

    def load_prepare(self) -> None:
        """Check what is about to be decoded; libtiff checks by itself."""
        if not self.use_load_libtiff:
            self._check_whole()
        super().load_prepare()

    def load_end(self) -> None:
        """Turn the picture upright, in memory that it has already."""
        if not isinstance(self.info.get("xmp", b""), bytes):
            del self.info["xmp"]  # a tag of another type than bytes
        ImageOps.exif_transpose(self, in_place=True)

    @contextmanager
    def _in_a_form_that_pillow_knows(self) -> Iterator[None]:
        """Describe deep grey, in which Pillow knows few forms, as one of those; to_rgb reads the true tags."""
        tags = self.tag_v2
        stated = {tag: tags.get(tag) for tag in (PHOTOMETRIC, SAMPLE_FORMAT)}
        if tags.get(BITS, (1,)) > (8,) and len(tags.get(BITS, (1,))) == 1:
            if stated[PHOTOMETRIC] == WHITE_IS_ZERO:
                tags[PHOTOMETRIC] = BLACK_IS_ZERO
            if tags[BITS] == (32,) and stated[SAMPLE_FORMAT] in (None, UNSIGNED):
                tags[SAMPLE_FORMAT] = SIGNED
        yield
        for tag, value in stated.items():
            if value is not None:
                tags[tag] = value
            elif tag in tags:
                del tags[tag]

    def _check_whole(self) -> None:
        """Check that the uncompressed strips or tiles cover the picture; Pillow leaves the rest black.

        Raises:
            ImageUndecodable: they do not.
        """
        planes = Image.getmodebands(self.mode) if self._separate_planes() else 1
        wanted = self._tile_size[0] * self._tile_size[1] * planes
        extents = [tile.extents for tile in self.tile if tile.extents is not None]
        found = sum((right - left) * (bottom - top) for left, top, right, bottom in extents)
        if found < wanted:
            raise ImageUndecodable(f"the TIFF image is truncated: it has {found:,} of {wanted:,} pixels")
