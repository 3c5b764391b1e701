"""Single images of a data set, read one by one out of the shards, so that no shard is copied for a thumbnail."""

import hashlib
from dataclasses import dataclass

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.decode import Pixels, decode
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import load_index, load_manifest

MAX_INDEXES = 40
"""Shards whose indexes are searched for samples."""


@dataclass(frozen=True)
class Sample:
    """One image of a shard."""

    index: ShardIndex
    place: int

    @property
    def labels(self) -> tuple[int, ...]:
        """Class numbers of the image, ascending."""
        return tuple(self.index.labels[self.place])


def read_image(data: ShardSet, sample: Sample) -> Pixels:
    """Decode one image, its bytes checked against the index. IntegrityError when they differ."""
    index, place = sample.index, sample.place
    content = data.store().read(data.file(index.path).at, start=index.offset[place], length=index.size[place])
    if hashlib.sha256(content).hexdigest() != index.sha256s[place]:
        found = "its bytes are not those the index names"
        raise IntegrityError(f"read image {index.key[place]} of {data.uri}", found, "restore the shard")
    return decode(content)


def spread(data: ShardSet, split: str, number: int) -> list[Sample]:
    """Choose `number` images of a split, evenly spread over its first shards, or all where there are fewer."""
    indexes = [load_index(data, entry) for entry in load_manifest(data).of(split)[:MAX_INDEXES]]
    every = [(index, place) for index in indexes for place in range(index.count)]
    kept = min(number, len(every))
    return [Sample(*every[number * len(every) // kept]) for number in range(kept)]


def one_each(samples: list[Sample], number: int) -> list[Sample]:
    """Choose at most `number` of the samples, in their order, of as many different classes as possible."""
    classes = set()
    ranked = []
    for rank, sample in enumerate(samples):
        ranked.append((sample.labels in classes, rank))
        classes.add(sample.labels)
    return [samples[rank] for rank in sorted(rank for _, rank in sorted(ranked)[:number])]
