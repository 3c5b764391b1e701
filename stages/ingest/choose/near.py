"""What near-duplicates are, and how the search for them is cut into tasks, for any number of images. No torch.

An image has a place: the excluded looks come first, then images in the order of `duplicate.keep_order`. Hashes are cut
into groups of bits, one more than bits may differ: two that are near agree in one of them, where a cell has both.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.choose.hamming import BITS, HashCell, Hashes, Places, bands_below

SECOND_MOST = 60
"""Bits of the 192 of the second look that copies may differ in; images with nothing in common differ in 96 +- 7."""
CROWD = 500
"""How many others may be near an image by the first look before it counts as one of a crowd."""
MOST_KEPT = 10_000
"""How many kept images that may be alike one of a crowd is compared with, at most: the first."""
RANGE_IMAGES = 131_072
"""Images whose looks a task holds, about: seven views of 41 bytes each, and a few copies of them."""
SOLE = 131_072
"""So many images are one cell: all of them meet there."""
MOST_TOP = 16
"""Bits that all in a bucket of a cell agree in, at most."""


@dataclass(frozen=True)
class NearRule:
    """What all tasks of a search are told alike. `repr` tells all of it."""

    most: int
    """Bits of the first look in which copies may differ."""
    given: int
    """Looks that are excluded: the first places."""
    starts: tuple[int, ...]
    """The number of the first image of each part of the listing, and how many there are of all."""
    mixed: bool
    """Whether some images are of the split `train` and some are not."""
    sole: int
    ranges: int
    """Into how many the places, and the looks, are cut."""

    @classmethod
    def of(cls, most: int, given: int, starts: tuple[int, ...], mixed: bool) -> "NearRule":
        """As large as tasks should be."""
        ranges = max(1, -(-(given + starts[-1]) // RANGE_IMAGES))
        return cls(most, given, starts, mixed, SOLE, ranges)

    @property
    def images(self) -> int:
        """All that have a place, at most."""
        return self.given + self.starts[-1]

    @property
    def parts(self) -> int:
        """How many the listing has: also the number of the part that the excluded looks are."""
        return len(self.starts) - 1

    def places(self, numbers: Places, is_train: npt.NDArray[np.bool_]) -> Places:
        """Where images of the listing are in the order in which the first of two alike is kept."""
        later = is_train * self.starts[-1] if self.mixed else 0
        return np.asarray(self.given + numbers + later, dtype=np.int64)

    def numbers(self, places: Places) -> Places:
        """Which images of the listing places are, that are no excluded ones."""
        return np.asarray((places - self.given) % self.starts[-1])

    def part_of(self, places: Places) -> Places:
        """The part of the listing that each place is of."""
        found = np.searchsorted(np.array(self.starts), self.numbers(places), side="right") - 1
        return np.where(places < self.given, self.parts, found)

    def range_of(self, places: Places) -> Places:
        """The range of places that each is in."""
        return places // -(-(self.given + self.starts[-1] * (1 + self.mixed)) // self.ranges)

    @property
    def top(self) -> int:
        """Bits of a group."""
        return 0 if self.images <= self.sole else bits_of_group(self.most)

    @property
    def groups(self) -> int:
        """One of them has no bit that differs, in any two that are near."""
        return self.most + 1 if self.top else 1

    @property
    def cells(self) -> int:
        """Into how many each group is cut, by the value of its bits."""
        return min(self.ranges, 1 << self.top)

    def cell_of(self, hashes: Hashes, group: int) -> Places:
        """The cell of each hash."""
        if not self.top:
            return np.zeros(len(hashes), dtype=np.int64)
        values = self.turned(hashes, group) >> np.uint64(BITS - self.top)
        return values.astype(np.int64) * self.cells >> self.top

    def turned(self, hashes: Hashes, group: int) -> Hashes:
        """Each hash with the group's bits highest."""
        left = BITS - self._shift(group) - self.top
        if not left % BITS:
            return hashes
        return (hashes << np.uint64(left)) | (hashes >> np.uint64(BITS - left))

    def cell(self, group: int, number: int) -> HashCell:
        """How turned hashes of a cell are searched: alike for all cells."""
        if not self.top:
            return HashCell.of_all(self.images, self.most)
        low, end = (-(-(one << self.top) // self.cells) for one in (number, number + 1))
        between = [self._shift(group) - self._shift(one) for one in range(group)]
        elsewhere = tuple((BITS - self.top - bits, self.top, 0) for bits in between)
        return HashCell(bands_below(self.top, self.images, self.most), self.top, low, end - low, elsewhere)

    def _shift(self, group: int) -> int:
        return BITS // (self.most + 1) * group


def bits_of_group(most: int) -> int:
    """Bits in which images agree that a cell may have, where as many as `most` of all may differ."""
    return min(MOST_TOP, BITS // (most + 1))
