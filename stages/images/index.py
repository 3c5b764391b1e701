"""The index of a shard: where every image lies in the tar, what it is, and its digests. No torch.

Knows the content of the index file, not how the tar was written nor where it is kept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.keys import Ints

INDEX_SCHEMA = 1


@dataclass(frozen=True)
class ShardIndex:
    """One row per image, in the order of the tar; columns are equally long."""

    path: str
    """The tar's name inside the artifact."""
    split: str
    tar_bytes: int
    sha256: str
    plan_sha256: str
    """Digest of what was to be written: a later attempt adopts the shard only if its plan is equal."""
    key: Sequence[str]
    """WebDataset key, unique in the whole set."""
    source: Sequence[str]
    """Name of each image in the source, for people: never used as a path."""
    offset: Sequence[int]
    """Where each image's bytes begin in the tar."""
    size: Sequence[int]
    ext: Sequence[str]
    labels: Sequence[Sequence[int]]
    """Classes of each image, ascending; one each unless the set is multi-label."""
    sha256s: Sequence[str]
    """Digest of each image's bytes."""
    pixels_sha256: Sequence[str]
    """Digest of its decoded pixels, or of its bytes where ingest did not decode it."""
    width: Sequence[int]
    height: Sequence[int]
    """Height, like `width`, of the decoded image, upright."""
    kept: Sequence[Sequence[tuple[str, int, str]]] = ()
    """Extension, bytes and SHA-256 of the other members that each image has; nothing where the set keeps none."""

    def kept_of(self, row: int) -> Sequence[tuple[str, int, str]]:
        """The other members of one image, in the order of the tar."""
        return self.kept[row] if self.kept else ()

    @property
    def count(self) -> int:
        """Images of the shard."""
        return len(self.key)

    @property
    def pixels(self) -> int:
        """Pixels of all images together."""
        return sum(width * height for width, height in zip(self.width, self.height, strict=True))

    @cached_property
    def image_bytes(self) -> Ints:
        """Bytes (count,) that each image takes when decoded."""
        return np.asarray(self.width, dtype=np.int64) * np.asarray(self.height, dtype=np.int64) * 3

    def encode(self) -> bytes:
        """Canonical bytes of the index."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        if not self.kept:  # so that the indexes of sets that keep nothing are the same bytes as ever
            del columns["kept"]
        return (json.dumps({"schema": INDEX_SCHEMA, **columns}, separators=(",", ":")) + "\n").encode()


_COLUMNS = ("key", "source", "offset", "size", "ext", "labels", "sha256s", "pixels_sha256", "width", "height")


def parse_index(data: bytes, name: str) -> ShardIndex:
    """Read an index. IntegrityError naming `name` when it is damaged or contradicts itself."""
    try:
        values = json.loads(data)
        if values.pop("schema") != INDEX_SCHEMA:
            raise ValueError("unknown schema")
        index = ShardIndex(**values)
        lengths = {len(getattr(index, column)) for column in _COLUMNS} | ({len(index.kept)} if index.kept else set())
        if len(lengths) != 1:
            raise ValueError(f"columns of unequal lengths {sorted(lengths)}")
        _check_numbers(index)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"read the index {name}", f"it is damaged: {error}", "restore the object") from error
    return index


def _check_numbers(index: ShardIndex) -> None:
    """ValueError for places, sizes or sides that no image of the tar can have: readers count on them."""
    columns = [np.asarray(one) for one in (index.offset, index.size, index.width, index.height, [index.tar_bytes])]
    if not len(index.key):
        return
    if any(one.dtype.kind != "i" or one.ndim != 1 for one in columns):
        raise ValueError("a place, size or side that is no whole number")
    offset, size, width, height, _ = columns
    if offset.min() < 0 or size.min() < 0 or offset.max() > index.tar_bytes or (size > index.tar_bytes - offset).any():
        raise ValueError("an image beyond the end of the shard")
    if min(width.min(), height.min()) < 1:
        raise ValueError("an image without pixels")
