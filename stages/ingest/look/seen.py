"""What was seen of images as columns of an Arrow table, beside those of the listing, and back. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vitpipe.stages.images.header import FORMATS
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.scan import RejectedImage, SoundImage
from vitpipe.stages.ingest.parts.rows import packed, unpacked

_EXTS = tuple(FORMATS)
_OWN = [
    ("sha256", pa.binary(32)), ("pixels_sha256", pa.binary(32)), ("bytes", pa.int64()), ("ext", pa.int8()),
    ("width", pa.int32()), ("height", pa.int32()), ("chunk", pa.int32()), ("offset", pa.int64()),
    ("looks", pa.binary()), ("reencoded", pa.bool_()),
]  # fmt: skip
SEEN = pa.schema([*_OWN, ("reason", pa.binary())])
"""As in `scan.SoundImage`; an image that is set aside has a reason and zeros."""
_LISTED = [
    ("name", pa.binary()), ("labels", pa.list_(pa.int32())), ("split", pa.binary()), ("size", pa.int64()),
    ("place", pa.list_(pa.int64())),
]  # fmt: skip
IMAGES = pa.schema([*_LISTED, *_OWN])
"""Sound images: what of the listing is still needed, and what was seen."""
NUMBERED = pa.schema([*IMAGES, ("number", pa.int64())])
"""The same with the row of the whole listing that each is."""
_NOTHING = SoundImage("00" * 32, "00" * 32, 0, _EXTS[0], 0, 0, (0, 0))


def seen_rows(seen: Sequence[SoundImage | RejectedImage]) -> Any:
    """A table of them, in order."""
    sound = [_NOTHING if isinstance(one, RejectedImage) else one for one in seen]
    columns = {
        "sha256": [bytes.fromhex(one.sha256) for one in sound],
        "pixels_sha256": [bytes.fromhex(one.pixels_sha256) for one in sound],
        "bytes": [one.size for one in sound],
        "ext": [_EXTS.index(one.ext) for one in sound],
        "width": [one.width for one in sound],
        "height": [one.height for one in sound],
        "chunk": [one.place[0] for one in sound],
        "offset": [one.place[1] for one in sound],
        "looks": [one.likeness for one in sound],
        "reencoded": [one.reencoded for one in sound],
        "reason": [packed(one.reason) if isinstance(one, RejectedImage) else None for one in seen],
    }
    return pa.table(columns, schema=SEEN)


def beside(listed: Any, seen: Any, first: int) -> tuple[Any, Any]:
    """Rows of a listing, numbered from `first` on, with what was seen: sound images; the others' names and reasons."""
    is_bad = seen.column("reason").is_valid()
    columns = [listed.column(name) for name, _ in _LISTED] + [seen.column(name) for name, _ in _OWN]
    columns.append(pa.chunked_array([pa.array(np.arange(first, first + len(listed)))]))
    sound = pa.table(columns, schema=NUMBERED).filter(pa.compute.invert(is_bad))
    bad = pa.table({"name": listed.column("name"), "reason": seen.column("reason")}).filter(is_bad)
    return sound, bad


def images_of(table: Any) -> list[Image]:
    """The images of a table that has all columns of `IMAGES`."""
    columns = (table.column(name).to_pylist() for name in IMAGES.names)
    return [
        Image(
            Item(unpacked(name), tuple(labels), None if split is None else unpacked(split), size, tuple(place)),
            SoundImage(sha256.hex(), pixels.hex(), count, _EXTS[ext], width, height, (chunk, offset), looks, reencoded),
        )
        for (
            name,
            labels,
            split,
            size,
            place,
            sha256,
            pixels,
            count,
            ext,
            width,
            height,
            chunk,
            offset,
            looks,
            reencoded,
        ) in zip(*columns, strict=True)
    ]


def digests(table: Any, column: str) -> npt.NDArray[np.uint8]:
    """A column of digests, (N, 32)."""
    array = table.column(column).combine_chunks()
    if not len(array):
        return np.empty((0, 32), dtype=np.uint8)
    return np.frombuffer(array.buffers()[1], dtype=np.uint8, count=32 * len(array), offset=32 * array.offset).reshape(
        -1, 32
    )


def beginnings(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each as a number."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)
