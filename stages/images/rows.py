"""What a reader needs of a shard's index, in some 80 bytes an image: a table that is mapped from the local disk.

So a reader of very many shards holds few bytes of each, and the processes of a machine share them. No torch.
"""

import hashlib
import mmap
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.keys import Ints

Table = npt.NDArray[np.void]
_DIGEST_BYTES = 32
_NO_LABEL = -1
_FIXED = (
    ("offset", "<i8"), ("size", "<i8"), ("height", "<i4"), ("width", "<i4"), ("sha256", "V32"), ("decoded", "?")
)  # fmt: skip
_HEAD = struct.Struct("<5q32s")


class IndexRows:
    """One row per image, in the order of the tar. Columns (count,): where its bytes begin, how many, and its shape."""

    def __init__(self, table: Table, tar_bytes: int, tar_sha256: str) -> None:
        self._table, self.tar_bytes, self.tar_sha256 = table, tar_bytes, tar_sha256
        self.offset, self.size, self.height, self.width = (
            table[name] for name in ("offset", "size", "height", "width")
        )
        self._ext = table["ext"]

    @classmethod
    def of(cls, index: ShardIndex) -> "IndexRows":
        """Take from an index what reading needs."""
        longest = (max(map(len, column), default=0) for column in (index.labels, index.key, index.ext))
        table = np.zeros(index.count, dtype=_row_type(*longest))
        for name in ("offset", "size", "height", "width", "key", "ext"):
            table[name] = getattr(index, name)
        table["sha256"] = np.frombuffer(bytes.fromhex("".join(index.sha256s)), dtype="V32")
        table["decoded"] = np.array(index.pixels_sha256) != np.array(index.sha256s)
        for place in range(table["labels"].shape[1]):
            table["labels"][:, place] = [many[place] if place < len(many) else _NO_LABEL for many in index.labels]
        return cls(table, index.tar_bytes, index.sha256)

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
        *lengths, count, tar_bytes, tar_sha256 = _HEAD.unpack(data[: _HEAD.size])
        table = np.frombuffer(data, dtype=_row_type(*lengths), count=count, offset=_HEAD.size)
        return cls(table, tar_bytes, tar_sha256.hex())

    def encode(self) -> bytes:
        """The table as `mapped` finds it, its digest behind it."""
        table = self._table
        lengths = (table["labels"].shape[1], table.dtype["key"].itemsize, table.dtype["ext"].itemsize)
        data = _HEAD.pack(*lengths, len(table), self.tar_bytes, bytes.fromhex(self.tar_sha256)) + table.tobytes()
        return data + _digest(data)

    @property
    def count(self) -> int:
        """Images of the shard."""
        return len(self._table)

    def key(self, row: int) -> str:
        """The WebDataset key of an image."""
        return bytes(self._table["key"][row]).decode("ascii")

    def ext(self, row: int) -> str:
        """The extension of an image: of what format it is."""
        return str(self._ext[row], "ascii")

    def are(self, rows: Ints, ext: str) -> npt.NDArray[np.bool_]:
        """Which of some images have that extension."""
        return np.asarray(self._ext[rows] == ext.encode("ascii"))

    def sha256(self, row: int) -> str:
        """The digest of an image's bytes."""
        return bytes(self._table["sha256"][row]).hex()

    def was_decoded(self, row: int) -> bool:
        """Whether ingest decoded the image, and did not only see that it is whole."""
        return bool(self._table["decoded"][row])

    def labels(self, row: int) -> list[int]:
        """The classes of an image, ascending."""
        return [label for label in self._table["labels"][row].tolist() if label != _NO_LABEL]

    @property
    def label_columns(self) -> npt.NDArray[np.int32]:
        """Classes (count, most of any image); where an image has fewer, -1."""
        return self._table["labels"]

    @property
    def image_bytes(self) -> Ints:
        """Bytes (count,) that each image takes when decoded."""
        return np.asarray(self.height.astype(np.int64) * self.width * 3)


def _row_type(labels: int, key: int, ext: int) -> np.dtype[np.void]:
    """A row of so many labels, and of a key and an extension that are so long."""
    of_length = [("labels", "<i4", (labels,)), ("key", f"S{key}"), ("ext", f"S{ext}")]
    return np.dtype([*_FIXED, *of_length])


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
