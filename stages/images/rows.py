"""What a reader needs of a shard's index, in some 50 bytes an image: a table that is mapped from the local disk.

So a reader of very many shards holds few bytes of each, and the processes of a machine share them. Each column is as
narrow as the shard allows; what all keys begin with is kept once. No torch.
"""

import hashlib
import json
import mmap
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.keys import Ints

ROWS_SUFFIX = ".rows2"
"""Ends the name of a file of such rows; another for another layout, so that no version reads another's."""
Labels: TypeAlias = npt.NDArray[np.signedinteger[Any]]
_DIGEST_BYTES = 32
_NO_LABEL = -1
_BLOCK = 512
"""Contents of a tar begin at multiples of it."""
_HEAD_BYTES = struct.Struct("<q")


class IndexRows:
    """One row per image, in the order of the tar. Columns (count,) of small integers: height and width."""

    def __init__(self, table: npt.NDArray[np.void], facts: dict[str, Any]) -> None:
        self._table, self._unit, self._prefix = table, int(facts["unit"]), str(facts["prefix"])
        self._kinds: tuple[tuple[str, bool], ...] = tuple(
            (sys.intern(ext), bool(decoded)) for ext, decoded in facts["kinds"]
        )
        self.tar_bytes, self.tar_sha256 = int(facts["tar_bytes"]), str(facts["tar_sha256"])
        self.height, self.width = table["height"], table["width"]
        self._kind = table["kind"]

    @classmethod
    def of(cls, index: ShardIndex) -> "IndexRows":
        """Take from an index what reading needs."""
        decoded = [pixels != whole for pixels, whole in zip(index.pixels_sha256, index.sha256s, strict=True)]
        of_each = list(zip(index.ext, decoded, strict=True))
        kinds = {kind: place for place, kind in enumerate(dict.fromkeys(of_each))}
        unit = 1 if any(offset % _BLOCK for offset in index.offset) else _BLOCK
        prefix = os.path.commonprefix(list(index.key))  # noqa: RUF071 - keys are no paths
        most = max(map(len, index.labels), default=0)
        columns: dict[str, Sequence[Any]] = {
            "offset": [offset // unit for offset in index.offset],
            "size": index.size,
            "height": index.height,
            "width": index.width,
            "kind": [kinds[kind] for kind in of_each],
        }
        labels = [[*many, *[_NO_LABEL] * (most - len(many))] for many in index.labels]
        longest = max((len(key) - len(prefix) for key in index.key), default=0)
        fields = [
            *((name, _narrowest(column)) for name, column in columns.items()),
            ("sha256", "V32"),
            ("key", f"S{max(1, longest)}"),
            ("labels", _narrowest([_NO_LABEL, *(label for many in labels for label in many)]), (most,)),
        ]
        table = np.zeros(index.count, dtype=fields)
        for name, column in columns.items():
            table[name] = column
        table["sha256"] = np.frombuffer(bytes.fromhex("".join(index.sha256s)), dtype="V32")
        table["key"] = [key[len(prefix) :] for key in index.key]
        table["labels"] = np.array(labels, dtype=np.int64).reshape(index.count, most)
        facts = {"tar_bytes": index.tar_bytes, "tar_sha256": index.sha256}
        return cls(table, {**facts, "unit": unit, "prefix": prefix, "kinds": list(kinds)})

    @classmethod
    def mapped(cls, path: Path) -> "IndexRows | None":
        """Map what `encode` gave; None where nothing is, or it was damaged since."""
        try:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # no such file; an empty one
            return None
        if len(data) < _DIGEST_BYTES or _digest(data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
            return None
        begin = _HEAD_BYTES.size + _HEAD_BYTES.unpack(data[: _HEAD_BYTES.size])[0]
        facts = json.loads(bytes(data[_HEAD_BYTES.size : begin]))
        fields = [(name, kind, *map(tuple, shape)) for name, kind, *shape in facts["fields"]]
        return cls(np.frombuffer(data[begin:-_DIGEST_BYTES], dtype=fields), facts)

    def encode(self) -> bytes:
        """The table as `mapped` finds it, its digest behind it."""
        facts = {
            "tar_bytes": self.tar_bytes,
            "tar_sha256": self.tar_sha256,
            "unit": self._unit,
            "prefix": self._prefix,
            "kinds": self._kinds,
            "fields": self._table.dtype.descr,
        }
        head = json.dumps(facts, separators=(",", ":")).encode()
        data = _HEAD_BYTES.pack(len(head)) + head + self._table.tobytes()
        return data + _digest(data)

    @property
    def count(self) -> int:
        """Images of the shard."""
        return len(self._table)

    def place(self, row: int) -> tuple[int, int]:
        """Where an image's bytes begin in the tar, and how many they are."""
        return int(self._table["offset"][row]) * self._unit, int(self._table["size"][row])

    def places(self, rows: Ints) -> tuple[Ints, Ints]:
        """As `place`, of some images (B,)."""
        table = self._table
        return table["offset"][rows].astype(np.int64) * self._unit, table["size"][rows].astype(np.int64)

    def key(self, row: int) -> str:
        """The WebDataset key of an image."""
        return self._prefix + bytes(self._table["key"][row]).decode("ascii")

    def ext(self, row: int) -> str:
        """The extension of an image: of what format it is."""
        return self._kinds[int(self._kind[row])][0]

    def are(self, rows: Ints, ext: str) -> npt.NDArray[np.bool_]:
        """Which of some images have that extension."""
        ours = np.array([found == ext for found, _ in self._kinds], dtype=np.bool_)
        return np.asarray(ours[self._kind[rows]])

    def sha256(self, row: int) -> str:
        """The digest of an image's bytes."""
        return bytes(self._table["sha256"][row]).hex()

    def was_decoded(self, row: int) -> bool:
        """Whether ingest decoded the image, and did not only see that it is whole."""
        return self._kinds[int(self._kind[row])][1]

    def labels(self, row: int) -> list[int]:
        """The classes of an image, ascending."""
        return [label for label in self._table["labels"][row].tolist() if label != _NO_LABEL]

    @property
    def label_columns(self) -> Labels:
        """Classes (count, most of any image); where an image has fewer, -1."""
        return self._table["labels"]

    @property
    def image_bytes(self) -> Ints:
        """Bytes (count,) that each image takes when decoded."""
        return np.asarray(self.height.astype(np.int64) * self.width * 3)


def _narrowest(column: Sequence[int]) -> str:
    """The type of fewest bytes that holds all numbers."""
    low, high = min(column, default=0), max(column, default=0)
    sign, reach = ("u", high) if low >= 0 else ("i", 2 * max(high, -low - 1) + 1)
    return next(f"<{sign}{size}" for size in (1, 2, 4, 8) if reach < 256**size)


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
