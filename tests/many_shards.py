"""A committed set of very many shards that are all the same two files, and how a reader of it is measured."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vitpipe.stages.artifacts import File, ShardSet
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import Manifest, ShardEntry, SourceFacts
from vitpipe.stages.ingest.write.ustar import BLOCK, end, header, padding
from vitpipe.stages.record import load_artifact

CLASSES = tuple(f"n{number:08d}" for number in range(1000))


def many_shards(root: Path, shards: int, images: int) -> ShardSet:
    """So many shards of so many images of 8 px, with a record each reader believes."""
    root.mkdir(parents=True)
    tar, index = _one_shard(images)
    digest = hashlib.sha256(tar).hexdigest()
    names = [f"train-{number:06d}" for number in range(shards)]
    entries = tuple(
        ShardEntry(path=f"{name}.tar", split="train", count=images, bytes=len(tar), sha256=digest, pixels=64 * images)
        for name in names
    )
    source = SourceFacts(kind="folder", listing_sha256="0" * 64, listed=shards * images, quarantined=0, duplicates=0)
    manifest = Manifest(classes=CLASSES, multi_label=False, shards=entries, source=source).encode()
    contents = {"manifest.json": manifest, "one.tar": tar, "one.index": index.encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, data in contents.items():
        (root / name).write_bytes(data)
    places = [("manifest.json", "manifest.json"), *((f"{n}.{e}", f"one.{e}") for n in names for e in ("tar", "index"))]
    files = tuple(File(path=path, at=at, bytes=len(contents[at]), sha256=digests[at]) for path, at in places)
    found = ShardSet(
        files=files,
        manifest_sha256=digests["manifest.json"],
        num_classes=len(CLASSES),
        splits={"train": shards * images},
    )
    _commit(root, found)
    loaded = load_artifact(str(root.absolute().as_uri()))
    assert isinstance(loaded, ShardSet)
    return loaded


def _one_shard(images: int) -> tuple[bytes, ShardIndex]:
    keys, tar, offsets, data = [f"train-{row:09d}" for row in range(images)], bytearray(), [], []
    for number, key in enumerate(keys):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(file, "PNG")
        data.append(file.getvalue())
        tar += header(f"{key}.png", len(data[-1]))
        offsets.append(len(tar))
        label = str(number % len(CLASSES)).encode()
        tar += data[-1] + padding(len(data[-1])) + header(f"{key}.cls", len(label)) + label + padding(len(label))
    tar += end(len(tar))
    digests = [hashlib.sha256(one).hexdigest() for one in data]
    index = ShardIndex(
        path="one.tar", split="train", tar_bytes=len(tar), sha256=hashlib.sha256(tar).hexdigest(), plan_sha256="0" * 64,
        key=keys, source=[f"{CLASSES[n % 1000]}/{n}.png" for n in range(images)], offset=offsets,
        size=[len(one) for one in data], ext=["png"] * images, labels=[[n % len(CLASSES)] for n in range(images)],
        sha256s=digests, pixels_sha256=["f" * 64] * images, width=[8] * images, height=[8] * images,
    )  # fmt: skip
    assert offsets[0] == BLOCK
    return bytes(tar), index


def _commit(root: Path, found: ShardSet) -> None:
    record = {
        "schema": 1, "node": "shards", "stage": "ingest", "fingerprint": "0" * 64, "recipe": {}, "config": {},
        "inputs": {}, "output": found.facts(), "files": [file.model_dump() for file in found.files], "code": "",
        "versions": {}, "started": "2026-01-01T00:00:00Z", "seconds": 1.0, "attempt": "a1",
    }  # fmt: skip
    (root / "record.json").write_text(json.dumps(record))


def held_bytes() -> int:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def opening(folder: Path, cache: Path, batch_images: int) -> tuple[int, np.ndarray]:
    """Open the set in this process as a rank of 64 does and make its first batch: bytes more than before, labels."""
    from vitpipe.stages.images.config import AugmentSettings
    from vitpipe.stages.images.train import TrainImages

    before = held_bytes()
    shards = load_artifact(str(folder.absolute().as_uri()))
    assert isinstance(shards, ShardSet)
    images = TrainImages(shards, "train", 8, AugmentSettings(), 0, cache)
    labels = images.micro_batch(0, batch_images).labels.numpy()
    return held_bytes() - before, labels
