"""What becomes of a damaged shard, here and in plain webdataset: one byte flipped, or the end cut off, anywhere.

PYTHONPATH=.:tests python -m tests.faults.shard_damage
"""

import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import webdataset
from photos import encoded, ingest, picture, write

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split

Samples = list[tuple[bytes, int]]
Outcome = str
EXACT, NAMED, FEWER, OTHER = "exact", "an error", "fewer samples, in silence", "other samples, in silence"


def small_shard(folder: Path) -> ShardSet:
    """One tar of three JPEGs."""
    for number in range(3):
        write(folder / f"source/class-{number}/{number}.jpg", encoded(picture(number, 16, 12), "JPEG"))
    return ingest(folder, {"source": {"kind": "folder", "root": str(folder / "source")}})


def tar_of(shards: ShardSet) -> Path:
    (entry,) = load_manifest(shards).shards
    return Path(shards.uri.removeprefix("file://")) / shards.file(entry.path).at


def damaged(data: bytes, step: int = 1) -> Iterator[tuple[str, bytes]]:
    """Each cut and each flip, at every `step`-th byte."""
    for place in range(0, len(data), step):
        yield "cut", data[:place]
        yield "flip", data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


def ours(shards: ShardSet, cache: Path) -> Samples:
    split = Split(shards, "train", cache)
    return [(split.pixels(number).tobytes(), int(split.labels[number])) for number in range(split.num_images)]


def plain(tar: Path, handler: Callable[[Exception], bool]) -> Samples:
    """As webdataset's own documentation reads shards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = webdataset.WebDataset(str(tar), shardshuffle=False, handler=handler, empty_check=False)
        pairs = read.decode("rgb8", handler=handler).to_tuple("jpg", "cls", handler=handler)
        return [(np.asarray(image).tobytes(), int(label)) for image, label in pairs]


def outcome(read: Callable[[], Samples], wanted: Samples, errors: type[BaseException]) -> Outcome:
    try:
        found = read()
    except errors:
        return NAMED
    if found == wanted:
        return EXACT
    rest = iter(wanted)
    return FEWER if all(sample in rest for sample in found) else OTHER


def table(shards: ShardSet, folder: Path, step: int = 1) -> dict[str, dict[str, Counter[Outcome]]]:
    """Of each reader and kind of damage, how often it ended how."""
    tar = tar_of(shards)
    data = tar.read_bytes()
    wanted = ours(shards, folder / "whole")
    readers: dict[str, tuple[Callable[[], Samples], type[BaseException]]] = {
        "vitpipe": (lambda: ours(shards, folder / "cache"), IntegrityError),
        "webdataset": (lambda: plain(tar, webdataset.reraise_exception), Exception),
        "webdataset, ignore_and_continue": (lambda: plain(tar, webdataset.ignore_and_continue), Exception),
    }
    found = {name: {"cut": Counter[Outcome](), "flip": Counter[Outcome]()} for name in readers}
    try:
        with mock.patch.object(os, "fsync"):  # the disk is not what is tried here
            for kind, bad in damaged(data, step):
                tar.write_bytes(bad)
                for name, (read, errors) in readers.items():
                    found[name][kind][outcome(read, wanted, errors)] += 1
    finally:
        tar.write_bytes(data)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        shards = small_shard(Path(made))
        print(f"webdataset {webdataset.__version__}, a tar of {tar_of(shards).stat().st_size} bytes, 3 JPEGs")
        for reader, kinds in table(shards, Path(made)).items():
            for kind, ends in kinds.items():
                told = ", ".join(f"{ends[name]} {name}" for name in (EXACT, NAMED, FEWER, OTHER))
                print(f"  {reader:32} {kind:5} {told}")


if __name__ == "__main__":
    main()
