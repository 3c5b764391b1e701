"""The order of samples as a pure function: position in the endless sequence of epochs -> sample of the split.

Knows counts per shard, a digest and a seed; nothing of files, ranks or batches. Any position costs the same.

An epoch's shards are permuted and put one after another; this line is cut into C equal streams, each stream into
windows of at least 65536 samples, and each window is permuted. Blocks of 32 positions take from the streams in turn.
So a reader of some blocks reads few shards at a time, and up to 131071 images are one window: a perfect global shuffle.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.keys import Ints, permutation

WINDOW = 65_536
"""Smallest number of samples shuffled together (an epoch with fewer is one window)."""
MAX_STREAMS = 512
BLOCK = 32
"""Positions that follow one another in one stream."""
Window = tuple[int, ...]
"""What is shuffled together: of an order (epoch, stream, window); of a mixture, its set before these."""


class Order:
    """The sample order of one set: every epoch has each image exactly once.

    `counts` are samples per shard; `digest` names the data (manifest, split, subset). ValueError without an image.
    """

    def __init__(self, counts: Sequence[int], digest: str, seed: int) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.num_images = int(self.counts.sum())
        if self.num_images == 0:
            raise ValueError("an order needs at least one image")
        self._starts = np.concatenate(([0], self.counts.cumsum()[:-1]))
        self._name = (digest, seed)
        self.streams = streams_of(self.num_images)
        self._bounds = np.arange(self.streams + 1) * self.num_images // self.streams
        self._whole_blocks = self.num_images // self.streams // BLOCK * BLOCK  # samples of each stream
        self._tails = self._bounds - np.arange(self.streams + 1) * self._whole_blocks
        self._epoch_shards = lru_cache(maxsize=4)(self._shard_order)  # a batch may straddle two epochs

    def lookup(self, positions_B: Ints) -> tuple[Ints, Ints]:
        """Find the epoch (B,) and the sample number in manifest order (B,) of each position (B,)."""
        epochs_B, slots_B = np.divmod(positions_B, self.num_images)
        samples_B = np.empty_like(slots_B)
        for epoch in np.unique(epochs_B):
            here = epochs_B == epoch
            samples_B[here] = self._samples(int(epoch), slots_B[here])
        return epochs_B, samples_B

    @property
    def turn(self) -> int:
        """Positions after which each stream has gone on to its next window, at the latest."""
        longest = int(np.diff(self._bounds).max())
        return self.streams * -(-longest // max(1, longest // WINDOW))

    def windows_at(self, positions_B: Ints) -> list[Window]:
        """List the windows (epoch, stream, window) that positions (B,) lie in, the first needed first."""
        epochs_B, slots_B = np.divmod(positions_B, self.num_images)
        streams_B, places_B = self._place(slots_B)
        windows_B = _window_of(places_B, self._bounds[streams_B + 1] - self._bounds[streams_B])
        return [*dict.fromkeys(zip(epochs_B.tolist(), streams_B.tolist(), windows_B.tolist(), strict=True))]

    def shards_of(self, window: Window) -> Ints:
        """List the shards that a window's samples are in."""
        epoch, stream, nth = window
        length = int(self._bounds[stream + 1] - self._bounds[stream])
        shards, starts = self._epoch_shards(epoch)
        count = max(1, length // WINDOW)
        begin, end = nth * length // count, (nth + 1) * length // count
        low, high = np.searchsorted(starts, self._bounds[stream] + np.array([begin, end - 1]), side="right") - 1
        here = shards[low : high + 1]
        return here[self.counts[here] > 0]

    def _samples(self, epoch: int, slots: Ints) -> Ints:
        line = self._shuffled(epoch, *self._place(slots))
        shards, starts = self._epoch_shards(epoch)
        nth = np.searchsorted(starts, line, side="right") - 1
        return self._starts[shards[nth]] + line - starts[nth]

    def _shard_order(self, epoch: int) -> tuple[Ints, Ints]:
        """The epoch's shards in order, and where each begins on the line."""
        shards = permutation(len(self.counts), "shards", *self._name, epoch)
        return shards, np.concatenate(([0], self.counts[shards].cumsum()[:-1]))

    def _place(self, slots: Ints) -> tuple[Ints, Ints]:
        """Stream and place in the stream of each slot: blocks in turn, then the rest of each stream."""
        blocks, offsets = np.divmod(slots, BLOCK)
        turns, streams = np.divmod(blocks, self.streams)
        places = turns * BLOCK + offsets
        rest = slots - self._whole_blocks * self.streams
        left = rest >= 0
        streams[left] = np.searchsorted(self._tails, rest[left], side="right") - 1
        places[left] = self._whole_blocks + rest[left] - self._tails[streams[left]]
        return streams, places

    def _shuffled(self, epoch: int, streams: Ints, places: Ints) -> Ints:
        """The number on the epoch's line of shards, after the shuffle inside each window."""
        lengths = self._bounds[streams + 1] - self._bounds[streams]
        num_windows = np.maximum(1, lengths // WINDOW)
        windows = _window_of(places, lengths)
        begins = windows * lengths // num_windows
        sizes = (windows + 1) * lengths // num_windows - begins
        line = np.empty_like(places)
        _, first, group, counts = np.unique(
            streams * self.num_images + windows, return_index=True, return_inverse=True, return_counts=True
        )
        members = np.split(np.argsort(group, kind="stable"), counts.cumsum()[:-1])
        for one, here in zip(first.tolist(), members, strict=True):  # one window each
            stream, window, begin, size = (int(of[one]) for of in (streams, windows, begins, sizes))
            moved = _window(epoch, *self._name, stream, window, size)[places[here] - begin]
            line[here] = self._bounds[stream] + begin + moved
        return line


def streams_of(num_images: int) -> int:
    """Count the streams of an order of so many images: a power of two."""
    wanted = min(MAX_STREAMS, max(1, num_images // WINDOW))
    return 1 << (wanted.bit_length() - 1)


def _window_of(places: Ints, lengths: Ints) -> Ints:
    """The window w of W in a stream of length L, with w L // W <= place < (w + 1) L // W."""
    return ((places + 1) * np.maximum(1, lengths // WINDOW) - 1) // lengths


@lru_cache(maxsize=MAX_STREAMS + 64)  # one window of each stream: at most 0.5 MB each
def _window(epoch: int, digest: str, seed: int, stream: int, window: int, size: int) -> npt.NDArray[np.int32]:
    return permutation(size, "window", digest, seed, epoch, stream, window).astype(np.int32)
