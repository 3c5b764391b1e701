"""The sound images of a listing with what was seen in them: a whole source in memory, in few bytes each. No torch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.header import FORMATS
from vitpipe.stages.ingest.listing import Item, Items
from vitpipe.stages.ingest.look.scan import RejectedImage, SoundImage
from vitpipe.stages.ingest.table import Rows, View

Digests = npt.NDArray[np.bytes_]
Numbers = npt.NDArray[np.int64]

_EXTS = tuple(FORMATS)
_FIELDS = [
    ("sha256", "S32"), ("pixels_sha256", "S32"), ("size", "i4"), ("width", "i4"), ("height", "i4"), ("chunk", "i4"),
    ("ext", "i1"), ("reencoded", "?"), ("sound", "?"),
]  # fmt: skip
_ROW = np.dtype(_FIELDS)


class Image(NamedTuple):
    """A sound image of the listing with its content."""

    item: Item
    seen: SoundImage


class ImageTable:
    """Satisfies `table.Table[Image]`: a row for each of `items`, filled as they are looked at, in any order."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self._rows = np.zeros(len(items), dtype=_ROW)
        self._offset: Numbers | None = None  # in what a chunk kept: of costly sources alone
        self._looks: dict[int, bytes] = {}

    @classmethod
    def of(cls, items: Sequence[Item], seen: Sequence[SoundImage]) -> View[Image]:
        """All of them, sound."""
        images = cls(Items(items))
        images.put(range(len(items)), seen)
        return images.sound(range(len(items)))

    def put(self, rows: Rows, seen: Sequence[SoundImage | RejectedImage]) -> None:
        """What was seen in these rows."""
        for row, one in zip(rows, seen, strict=True):
            if isinstance(one, SoundImage):
                self._put(int(row), one)

    def _put(self, row: int, one: SoundImage) -> None:
        chunk, offset = one.place
        digests, ext = (bytes.fromhex(one.sha256), bytes.fromhex(one.pixels_sha256)), _EXTS.index(one.ext)
        self._rows[row] = (*digests, one.size, one.width, one.height, chunk, ext, one.reencoded, True)
        if offset and self._offset is None:
            self._offset = np.zeros(len(self.items), dtype=np.int64)
        if self._offset is not None:
            self._offset[row] = offset
        if one.likeness is not None:
            self._looks[row] = one.likeness

    def row(self, number: int) -> Image:
        """One image; of one that was not put, or is not sound, an empty one."""
        sha256, pixels_sha256, size, width, height, chunk, ext, reencoded, _ = self._rows[number].item()
        offset = 0 if self._offset is None else int(self._offset[number])
        digests, looks = (_hex(sha256), _hex(pixels_sha256)), self._looks.get(number)
        seen = SoundImage(*digests, size, _EXTS[ext], width, height, (chunk, offset), looks, reencoded)
        return Image(self.items.row(number), seen)

    def name(self, number: int) -> str:
        """One image's name in the source."""
        return self.items.name(number)

    def take(self, rows: Rows) -> "ImageTable":
        """A table of these rows alone, in their order."""
        taken, numbers = ImageTable(self.items.take(rows)), np.asarray(rows, dtype=np.int64)
        taken._rows = self._rows[numbers]
        taken._offset = None if self._offset is None else self._offset[numbers]
        taken._looks = {
            place: self._looks[row] for place, row in enumerate(numbers.tolist()) if self._looks and row in self._looks
        }
        return taken

    def sound(self, rows: Rows) -> View[Image]:
        """Those of the rows that were seen and are sound, in the same order."""
        numbers = np.asarray(rows, dtype=np.int32)
        return View(self, numbers[self._rows["sound"][numbers]])

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column, all rows: `sha256` and `pixels_sha256` as 32 bytes, `size` in bytes."""
        return self._rows[name]

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        return self.items.nbytes + self._rows.nbytes + (0 if self._offset is None else self._offset.nbytes)


def _hex(digest: bytes) -> str:
    return digest.ljust(32, b"\0").hex()  # numpy gives it without the zeros at its end
