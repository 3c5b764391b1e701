"""How far an ingest is, told after every task. No torch."""

import time
from collections import Counter
from dataclasses import dataclass, field

from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.choose.select import ShardPlan
from vitpipe.stages.ingest.look.chunk import Looked


@dataclass
class Tally:
    """What the node's progress says: an image counts half when it was looked at, half when it is written."""

    ctx: StageContext
    total: int
    looked: int = 0
    written: int = 0
    adopted: int = 0
    """Images that earlier attempts looked at or wrote; one that they did both with counts twice."""
    quarantined: int = 0
    duplicates: int = 0
    reencoded: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    """Sound images by format."""
    read_back: int = 0
    """Images that this attempt wrote, in shards that webdataset has read."""
    moved_bytes: int = 0
    """Read at the first look and written into shards, by this attempt."""
    started: float = field(default_factory=time.monotonic)

    def saw(self, chunk: Looked, is_taken: bool) -> None:
        """A chunk was looked at, by this attempt or an earlier one."""
        self.looked += chunk.images
        self.quarantined += chunk.bad
        self.reencoded += chunk.reencoded
        self.formats.update(chunk.formats)
        self.adopted += chunk.images if is_taken else 0
        self.moved_bytes += 0 if is_taken else chunk.sound_bytes
        self.tell()

    def wrote(self, plan: ShardPlan, is_read_back: bool) -> None:
        """A shard was written."""
        self.written += len(plan.images)
        self.read_back += len(plan.images) if is_read_back else 0
        self.moved_bytes += plan.image_bytes
        self.tell()

    def tell(self) -> None:
        """Progress: images, their rate and bytes; the time to the end is reckoned by who writes it."""
        done = (self.looked + self.written + self.quarantined + self.duplicates) // 2
        notes = [f"{self.moved_bytes / self.seconds / 1e6:.1f} MB/s"]
        notes += [f"{self.quarantined} quarantined"] if self.quarantined else []
        self.ctx.progress.update(
            done,
            self.total,
            "images",
            images_per_second=self.images_per_second(done),
            note=", ".join(notes),
            metrics={"quarantined_samples_total": float(self.quarantined)},
        )

    def images_per_second(self, images: int) -> float:
        """The rate of this attempt alone."""
        return max(0, images - self.adopted // 2) / self.seconds

    @property
    def seconds(self) -> float:
        """Since this attempt began, never 0."""
        return max(time.monotonic() - self.started, 1e-9)
