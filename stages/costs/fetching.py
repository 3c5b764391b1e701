"""Bytes that one machine reads from the store in a training, and what it must hold for that. No torch.

By the order of `stages.images.order`: an epoch is C streams, each cut into windows; blocks of a batch take from the
streams in turn, and each epoch cuts other shards into them, so that a machine has another part of the set each time.
"""

from dataclasses import dataclass

WINDOW, MOST_STREAMS = 65_536, 512
"""As `stages.images.order` has them; a test compares."""
AHEAD = 2
"""Windows of each stream that are on the disk: the one being read, and the one that is fetched ahead."""


@dataclass(frozen=True)
class Feed:
    """A training's data, as its machines read it."""

    images: int
    """Of one epoch."""
    image_bytes: float
    machines: int
    share: float
    """Part of an epoch's shards that one machine comes to read from: `stages.pretrain.locality`."""
    epochs: float
    disk_bytes: float
    """Room for shards on one machine."""

    @property
    def set_bytes(self) -> float:
        """The whole set."""
        return self.images * self.image_bytes

    @property
    def streams(self) -> int:
        """Streams that an epoch is cut into."""
        wanted = min(MOST_STREAMS, max(1, self.images // WINDOW))
        return 1 << (wanted.bit_length() - 1)

    @property
    def window_bytes(self) -> float:
        """What a machine's streams have open and coming; at most its part of the set."""
        open_images = AHEAD * self.streams * max(WINDOW, self.images / self.streams if self.streams == 1 else 0)
        return self.share * min(self.set_bytes, open_images * self.image_bytes)

    @property
    def fits(self) -> bool:
        """Whether the disk holds the windows; if not, what finds no room is read image by image."""
        return self.window_bytes <= self.disk_bytes

    @property
    def ranged(self) -> float:
        """Share of the images that are read by ranges: those whose window has no room."""
        return 0.0 if self.fits else 1 - self.disk_bytes / self.window_bytes

    @property
    def fetched_bytes(self) -> float:
        """All that one machine reads from the store."""
        return sum(epochs * bytes_ for epochs, bytes_ in self.fetches)

    @property
    def fetches(self) -> list[tuple[float, float]]:
        """What one machine reads in each of so many epochs, one after the other: each image of its own where there is
        no room for windows, else each epoch's part less what earlier epochs left on the disk."""
        own = self.set_bytes / self.machines
        if not self.fits:
            return [(self.epochs, self.ranged * own + (1 - self.ranged) * self.share * self.set_bytes)]
        room, kept, left = min(1.0, self.disk_bytes / self.set_bytes), 0.0, self.epochs
        found: list[tuple[float, float]] = []
        while left > 0:
            part = self.share * (1 - kept)
            now = min(room, kept + min(1.0, left) * part)
            epochs = left if now == kept else min(1.0, left)  # every later epoch fetches as much
            found.append((epochs, self.set_bytes * part))
            kept, left = now, left - epochs
        return found
