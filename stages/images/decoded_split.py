"""A split whose pixels are kept in memory, for sets small enough. No torch."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from vitpipe.infra.at_once import answers
from vitpipe.stages.images.ahead import Ranges
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.mixture import Mixture
from vitpipe.stages.images.order import Order
from vitpipe.stages.images.pixel_source import Files
from vitpipe.stages.images.split import FETCHES, Split

DECODED_BYTES = 512_000_000
"""A split whose pixels take no more than this together is kept decoded in memory, filled as images are read."""


class DecodedSplit:
    """A split that decodes each image once and keeps the pixels, for sets small enough. Safe for threads."""

    def __init__(self, split: Split) -> None:
        self._split = split
        tables = [*answers(split.rows, range(len(split.entries)), FETCHES)]
        sizes = np.concatenate([rows.image_bytes for rows in tables])
        sides = [np.stack((rows.height, rows.width), axis=1) for rows in tables]
        self._shape_N2 = np.concatenate(sides).astype(np.int64)
        self._starts = np.concatenate(([0], sizes.cumsum())).tolist()
        self._store = np.empty(self._starts[-1], dtype=np.uint8)
        self._filled = np.zeros(len(sizes), dtype=bool)

    def gather(self, numbers: Iterable[int]) -> None:
        """As `Split.gather`, for images that are not decoded yet."""
        self._split.gather(number for number in numbers if not self._filled[number])

    def looked_ahead(self, order: Order | Mixture, ranges: Ranges) -> AbstractContextManager[Callable[[int], None]]:
        """As `Split.looked_ahead`, for nothing: what is read once needs no shard later."""
        return nullcontext(lambda position: None)

    def pixels(self, number: int) -> Pixels:
        """As `Split.pixels`; a view that must not be written to."""
        height, width = self._shape_N2[number].tolist()
        kept = self._store[self._starts[number] : self._starts[number + 1]].reshape(height, width, 3)
        if not self._filled[number]:  # two threads may fill the same place: with the same bytes
            kept[...] = self._split.pixels(number)
            self._filled[number] = True
        return kept

    def shapes(self, numbers_B: Ints) -> Ints:
        """As `Split.shapes`."""
        return self._shape_N2[numbers_B]

    def files(self, numbers_B: Ints) -> Files:
        """No files: pixels are kept."""
        nothing = np.zeros(len(numbers_B), dtype=np.int64)
        return Files(nothing, nothing, [])

    def part(self, number: int, box: Box) -> Pixels:
        """As `Split.part`; a view that must not be written to."""
        return box.of(self.pixels(number))


def open_pixels(split: Split) -> Split | DecodedSplit:
    """Open a split for reading pixels: kept decoded when all of them fit in `DECODED_BYTES`."""
    small = sum(entry.pixels for entry in split.entries) * 3 <= DECODED_BYTES
    return DecodedSplit(split) if small else split
