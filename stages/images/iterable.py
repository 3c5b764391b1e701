"""Our order for anybody's training loop: a dataset for torch's DataLoader, or webdataset's WebLoader.

Batches come in the order of `stages.images.order` at any number of ranks and loader workers; the whole state is one
integer, the samples seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from infra.errors import UsageError
from stages.artifacts import ShardSet
from stages.images.config import AugmentSettings
from stages.images.train import TrainImages
from stages.record import load_artifact


@dataclass(frozen=True)
class ShardStream(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches of a committed ShardSet: images uint8 (B/W, 3, image_px, image_px) and their labels.

    To be given to a loader with `batch_size=None`. Of the global batch each of the W ranks gets its share, in order.
    """

    shards: ShardSet | tuple[ShardSet, ...]
    """Several sets need `shares` too."""
    batch_images: int
    """Images of the global batch, over all ranks."""
    image_px: int
    cache: Path
    """Local folder for verified copies of shards; processes may share it."""
    split: str = "train"
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    shares: tuple[float, ...] = ()
    """How many images of each of several sets there are in any stretch of the stream."""
    seed: int = 0
    samples_seen: int = 0
    """Where the stream begins, in images over all ranks."""
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_images % self.world_size or not 0 <= self.rank < self.world_size:
            raise UsageError(
                f"stream batches of {self.batch_images} images for rank {self.rank}",
                f"{self.world_size} ranks cannot share them equally, or there is no such rank",
                "give a batch that is a multiple of the ranks, and a rank from 0 on",
            )

    @classmethod
    def open(cls, uri: str, batch_images: int, image_px: int, cache: Path) -> "ShardStream":
        """Of the ShardSet committed at `uri`, such as `s3://bucket/runs/i21k/shards`; the rest by `with_`."""
        found = load_artifact(uri)
        if not isinstance(found, ShardSet):
            raise UsageError(f"stream images of {uri}", f"it is a {found.kind}", "name the node of an ingest")
        return cls(found, batch_images, image_px, cache)

    def with_(self, **fields: object) -> "ShardStream":
        """The same stream with other fields; `samples_seen` resumes it."""
        return replace(self, **fields)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        first, apart = (worker.id, worker.num_workers) if worker else (0, 1)  # a loader asks its workers in turn
        images = TrainImages(
            self.shards, self.split, self.image_px, self.augment, self.seed, self.cache, shares=self.shares
        )
        share = self.batch_images // self.world_size
        start = self.samples_seen + first * self.batch_images + self.rank * share
        while True:
            batch = images.micro_batch(start, share)
            yield batch.images_BCHW, batch.labels
            start += apart * self.batch_images
