"""Safetensors, written tensor by tensor, the header from the shapes, the digest from the writing; read likewise, one
file or a folder's shards. Knows nothing of models. No torch.

Memory stays that of one tensor, which `safetensors.save_file` does not do. A header is checked against the file's size
before a number is read; the format has no checksum of its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.containers.hashed_file import ArraysFile, pieces
from vitpipe.stages.convert.numbers import (
    FLOATS,
    ITEM_BYTES,
    Array,
    Arrays,
    Shape,
    bf16_to_fp32,
    count,
    damaged,
    widened,
)
from vitpipe.stages.vit.file_kind import MAX_HEADER_BYTES

_NAMES: Mapping[Dtype, str] = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_COUNTERS = {"I64": "<i8", "I32": "<i4", "U64": "<u8", "U32": "<u4"}
"""Types of a single number that counts."""


class SafetensorsFile(ArraysFile):
    """A file open for writing."""

    def __init__(
        self, path: Path, shapes: Sequence[tuple[str, Shape]], dtype: Dtype, metadata: Mapping[str, str]
    ) -> None:
        super().__init__(path, shapes, dtype)
        self._file.write(_written_header(shapes, dtype, metadata))

    def _append(self, name: str, array: Array) -> None:
        for data in pieces(array, self.dtype):
            self._file.write(data)


def file_bytes(shapes: Sequence[tuple[str, Shape]], dtype: Dtype) -> int:
    """Bytes of the tensors such a file will hold."""
    return sum(count(shape) for _, shape in shapes) * ITEM_BYTES[dtype]


@dataclass(frozen=True)
class _Place:
    """Where one tensor lies."""

    path: Path
    start: int
    dtype: str
    shape: Shape

    @property
    def bytes(self) -> int:
        return count(self.shape) * np.dtype({**_TYPES, **_COUNTERS}[self.dtype]).itemsize


def open_safetensors(paths: Sequence[Path], index: Path | None = None) -> Arrays:
    """All tensors of the files together; `index` is a folder's `model.safetensors.index.json`, checked against them.

    Errors: IntegrityError for files that are cut off, damaged, or hold other tensors than the index says; UsageError
    for tensors that are not floating point numbers.
    """
    places: dict[str, _Place] = {}
    for path in paths:
        for name, place in _places(path).items():
            if name in places:
                raise damaged(path, f"{name} stands in {places[name].path.name} too")
            places[name] = place
    if index is not None:
        _compare_index(index, places)

    def read(name: str, layer: int | None = None) -> Array:
        array = _read(places[name])
        return array if layer is None else array[layer].copy()

    counters = tuple(name for name, place in places.items() if place.dtype in _COUNTERS)
    return Arrays({name: place.shape for name, place in places.items() if name not in counters}, read, False, counters)


def read_index(path: Path) -> tuple[str, ...]:
    """Names of the files that an index lists, sorted. IntegrityError when it is none."""
    return tuple(sorted(set(_weight_map(path).values())))


def _written_header(shapes: Sequence[tuple[str, Shape]], dtype: Dtype, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, shape in shapes:
        stop = start + count(shape) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text


def _weight_map(path: Path) -> dict[str, str]:
    try:
        listed = json.loads(path.read_bytes())["weight_map"]
        if not all(isinstance(name, str) and "/" not in name and name not in ("", "..") for name in listed.values()):
            raise ValueError("a file name in it leaves the folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"no index of shards: {error}") from error
    return dict(listed)


def _compare_index(index: Path, places: Mapping[str, _Place]) -> None:
    listed = _weight_map(index)
    found = {name: place.path.name for name, place in places.items()}
    if listed != found:
        wrong = sorted(name for name in {*listed, *found} if listed.get(name) != found.get(name))
        example = f"{wrong[0]}: {listed.get(wrong[0])}, found {found.get(wrong[0])}"
        raise damaged(index, f"{len(wrong)} tensors are not where it says, first {example}")


def _places(path: Path) -> dict[str, _Place]:
    entries, data_start = _header(path)
    data_bytes, places = path.stat().st_size - data_start, {}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda one: one[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        is_counter = entry["dtype"] in _COUNTERS and count(tuple(entry["shape"])) == 1
        if entry["dtype"] not in _TYPES and not is_counter:
            found = f"its tensor {name} holds {entry['dtype']}, not floating point numbers"
            raise UsageError(f"read {path}", found, FLOATS)
        place = _Place(path, data_start + start, entry["dtype"], tuple(entry["shape"]))
        if start != end or stop - start != place.bytes:
            raise damaged(path, f"{name} has bytes {start} to {stop}, expected {end} to {end + place.bytes}")
        places[name], end = place, stop
    if end != data_bytes:
        raise damaged(path, f"it has {data_bytes} bytes of tensors, its header says {end}")
    return {name: places[name] for name in entries}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Entries by name, and where the tensors begin."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(MAX_HEADER_BYTES, path.stat().st_size):
            raise damaged(path, f"its header would have {size} bytes, the file has {path.stat().st_size}")
        text = file.read(size)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        for entry in entries.values():
            numbers = (*entry["shape"], *entry["data_offsets"])
            if not all(type(number) is int and number >= 0 for number in numbers) or len(entry["data_offsets"]) != 2:
                raise ValueError(f"an entry says {entry}")
            str(entry["dtype"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"its header cannot be read: {error}") from error
    return entries, 8 + size


def _read(place: _Place) -> Array:
    numbers = np.empty(count(place.shape), _TYPES[place.dtype])
    with place.path.open("rb") as file:
        file.seek(place.start)
        if file.readinto(numbers.data.cast("B")) != place.bytes:
            raise damaged(place.path, "it became shorter while it was read")
    array = bf16_to_fp32(numbers) if place.dtype == "BF16" else widened(numbers)
    return array.reshape(place.shape)
