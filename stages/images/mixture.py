"""Several sets of images as one endless sequence, by stated shares: a pure function of the position.

Knows orders and shares; nothing of files, labels or ranks.

The sequence is cut into blocks. Every block holds exactly its share of each set, shuffled, and a set's images come in
that set's own endless order. So the whole state is still one integer, and a small set repeats before a large one ends.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from vitpipe.stages.images.keys import Ints, permutation
from vitpipe.stages.images.order import Order, Window
from vitpipe.stages.images.shares import block_counts


class Mixture:
    """An order like `Order`, over the images of all sets one after another; an epoch is as many as they have together.

    `name` names the data (manifest and split of each set).
    """

    def __init__(self, orders: Sequence[Order], shares: Sequence[float], name: str, seed: int) -> None:
        self._orders, self._name = tuple(orders), (name, seed)
        self.per_block = block_counts(shares)
        self._block_size = sum(self.per_block)
        sizes = [order.num_images for order in orders]
        self.num_images = sum(sizes)
        self._starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).tolist()
        self._block = lru_cache(maxsize=256)(self._shuffled)

    def lookup(self, positions_B: Ints) -> tuple[Ints, Ints]:
        """Find the epoch (B,) within each image's own set, and its number (B,) among the images of all sets."""
        sets_B, places_B = self.assign(positions_B)
        epochs_B, samples_B = np.empty_like(places_B), np.empty_like(places_B)
        for one in np.unique(sets_B).tolist():
            here = sets_B == one
            epochs_B[here], samples_B[here] = self._orders[one].lookup(places_B[here])
            samples_B[here] += self._starts[one]
        return epochs_B, samples_B

    @property
    def turn(self) -> int:
        """Positions after which every set has gone on to its next windows, at the latest."""
        counts = zip(self._orders, self.per_block, strict=True)
        return max(-(-order.turn * self._block_size // count) for order, count in counts)

    def windows_at(self, positions_B: Ints) -> list[Window]:
        """List the windows (set, epoch, stream, window) that positions (B,) lie in, set by set."""
        sets_B, places_B = self.assign(positions_B)
        at = ((one, order.windows_at(places_B[sets_B == one])) for one, order in enumerate(self._orders))
        return [(one, *window) for one, windows in at for window in windows]

    def shards_of(self, window: Window) -> Ints:
        """List the shards that a window's samples are in, numbered over all sets one after another."""
        one, *within = window
        return self._orders[one].shards_of(tuple(within)) + sum(len(order.counts) for order in self._orders[:one])

    def assign(self, positions_B: Ints) -> tuple[Ints, Ints]:
        """Find the set (B,) of each position, and the position (B,) in that set's own endless sequence."""
        blocks_B, offsets_B = np.divmod(positions_B, self._block_size)
        sets_B, places_B = np.empty_like(offsets_B), np.empty_like(offsets_B)
        for block in np.unique(blocks_B).tolist():
            here = blocks_B == block
            sets, places = self._block(block)
            sets_B[here], places_B[here] = sets[offsets_B[here]], places[offsets_B[here]]
        return sets_B, places_B

    def _shuffled(self, block: int) -> tuple[Ints, Ints]:
        """The set of each position in a block, and the place in that set's sequence."""
        drawn = permutation(self._block_size, "mixture", *self._name, block)
        sets = np.searchsorted(np.cumsum(self.per_block), drawn, side="right")
        places = np.empty_like(sets)
        for one, count in enumerate(self.per_block):
            places[sets == one] = block * count + np.arange(count)
        return sets, places
