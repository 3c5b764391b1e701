"""Reader of DMLab's TFRecord files: framed tf.train.Example messages of an encoded image, its name and its class."""

import struct
from collections.abc import Iterator
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.benchmarks.entries import UNREADABLE, OfficialImage, OfficialListing, Reader, damaged
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item

_MAX_RECORD_BYTES = 1 << 30
_SPLITS = ("train", "validation", "test")


def tf_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where each record's data begins, and the data. IntegrityError where the framing breaks.

    A record is its length (8 bytes), the length's check sum (4), the data, the data's check sum (4).
    """
    with path.open("rb") as file:
        while header := file.read(12):
            if len(header) < 12:
                raise damaged(path, f"it ends within a record, at byte {file.tell()}")
            length, check = struct.unpack("<QI", header)
            if length > _MAX_RECORD_BYTES or check != _masked_crc32c(header[:8]):
                raise damaged(path, f"no record begins at byte {file.tell() - 12}")
            place = file.tell()
            data = file.read(length + 4)
            if len(data) < length + 4:
                raise damaged(path, f"it ends within a record, at byte {file.tell()}")
            yield place, data[:-4]


def _masked_crc32c(data: bytes) -> int:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # half a second: only where needed

    return int(masked_crc32c(data))


def example_features(data: bytes) -> dict[str, bytes | int]:
    """The first value of each bytes or int64 feature of a tf.train.Example. ValueError where it is none.

    Example { Features { map<string, Feature> } }; a Feature has a list of bytes (1), floats (2) or int64 (3).
    """
    found: dict[str, bytes | int] = {}
    for number, features in _fields(data):
        if number != 1 or not isinstance(features, bytes):
            continue
        for _, pair in _fields(features):
            entry = dict(_fields(_message(pair)))
            name, feature = _message(entry.get(1)).decode("utf-8"), dict(_fields(_message(entry.get(2))))
            if 1 in feature:
                found[name] = _message(dict(_fields(_message(feature[1]))).get(1))
            elif 3 in feature:
                values = dict(_fields(_message(feature[3]))).get(1)
                found[name] = values if isinstance(values, int) else _varint(_message(values), 0)[0]
    return found


def _message(value: bytes | int | None) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field is not of the kind that tf.train.Example has there")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Fields of a protocol buffer message: numbers as integers, all else as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data) + 1), at)
        if at + length > len(data):
            raise ValueError(f"a field of {length} bytes leaves its message")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a number leaves its message")


def _dmlab(benchmark: Benchmark, root: Path) -> OfficialListing:
    entries = [
        _entry(path, split, file_number, place, data)
        for split in _SPLITS
        for file_number, path in enumerate(_files(root, split))
        for place, data in tf_records(path)
    ]
    return OfficialListing(entries, benchmark.classes)


def _files(root: Path, split: str) -> list[Path]:
    pattern = f"dmlab-{split}.tfrecord*"
    if found := sorted(root.glob(pattern)):
        return found
    raise UsageError(f"ingest DMLab from {root}", f"no {pattern} is there", "unpack dmlab.tar.gz there")


def _entry(path: Path, split: str, file_number: int, place: int, data: bytes) -> OfficialImage:
    try:
        features = example_features(data)
        name, label, image = features["filename"], features["label"], features["image"]
    except UNREADABLE as error:
        found = f"the record at byte {place} is no example of image, filename and label: {error}"
        raise damaged(path, found) from error
    if not (isinstance(name, bytes) and isinstance(label, int) and isinstance(image, bytes)):
        raise damaged(path, f"the record at byte {place} has features of other kinds")
    key, within = name.decode("utf-8", "replace"), (file_number, place, len(data))
    return OfficialImage(f"{split}/{key}", split, (label,), key=key, size=len(image), place=within)


def _read(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    file_number, place, length = item.place
    with _files(root, item.name.partition("/")[0])[file_number].open("rb") as file:
        file.seek(place)
        data = file.read(length + 4)
    if len(data) < length + 4 or _masked_crc32c(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise BadImage("its record does not have its check sum")
    image = example_features(data[:-4])["image"]
    assert isinstance(image, bytes), "listed as bytes, and the same by its check sum"
    return image


DMLAB = Reader(_dmlab, _read, files=False)
