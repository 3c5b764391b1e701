"""Whatever gives images by number: as pixels, or as bytes that the extension decodes. Imports no torch."""

from typing import NamedTuple, Protocol

from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.extension import Bytes
from vitpipe.stages.images.keys import Ints


class Files(NamedTuple):
    """Where the bytes of images lie in memory."""

    data_B: Ints
    """Addresses; 0 for an image that is no JPEG or PNG, or not to be decoded."""
    size_B: Ints
    """Bytes of each."""
    kept: list[Bytes]
    """Whose memory it is."""


class PixelSource(Protocol):
    """Whatever gives images by number: a split, or a split kept decoded."""

    def shapes(self, numbers_B: Ints) -> Ints:
        """Height and width (B, 2) of images, upright."""

    def part(self, number: int, box: Box) -> Pixels:
        """The pixels of one image in `box`, not to be written to; of most formats no more is decoded than needed."""

    def files(self, numbers_B: Ints) -> Files:
        """The bytes of images that the extension may decode."""
