"""Drawn pictures with the statistics of photographs, as shards in a folder: what a reader is measured on.

Amplitudes fall as 1/f, with edges and grain; what matters for a decoder is how many bits a block takes.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitpipe.stages.artifacts import File, ShardSet
from vitpipe.stages.contract import Out
from vitpipe.stages.gpu_check.ranks import doors
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import Manifest, ShardEntry, SourceFacts
from vitpipe.stages.record import Record, load_artifact

QUALITY = 90
GRAIN = 1.0
SHARD = "train-000000.tar"


@dataclass(frozen=True)
class PhotoSize:
    """A size of photograph."""

    width: int
    height: int
    slope: float
    """How fast amplitudes fall with frequency: 1.46 gives 71 KB at 500 x 375, 1.75 gives 295 KB at 1600 x 1200."""


def picture(size: PhotoSize, seed: int) -> Image.Image:
    """Draw one, in YCbCr."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(size.height)[:, None], np.fft.rfftfreq(size.width)[None]
    frequency = np.hypot(rows, columns) + 1 / size.width
    planes = []
    for strength in (45.0, 12.0, 12.0):
        spectrum = np.fft.rfft2(rng.standard_normal((size.height, size.width))) / frequency**size.slope
        plane = np.fft.irfft2(spectrum, (size.height, size.width))
        planes.append(strength * plane / plane.std())
    edges = np.zeros((size.height, size.width))
    y, x = np.mgrid[: size.height, : size.width]
    for _ in range(6):
        slope, at, step = rng.normal(0, 1.5), rng.random() * size.width, rng.normal(0, 25)
        edges += step * (x - at > slope * (y - size.height / 2))
    planes[0] += edges + GRAIN * rng.standard_normal(edges.shape)
    pixels = np.stack([120 + planes[0], 128 + planes[1], 128 + planes[2]], axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "YCbCr")


def photograph(size: PhotoSize, seed: int) -> bytes:
    """Draw one JPEG, 4:2:0."""
    file = io.BytesIO()
    picture(size, seed).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def drawn_shards(folder: Path, images: int, size: PhotoSize, different: int = 48, classes: int = 4) -> ShardSet:
    """Commit a set of one shard with so many images, of which `different` are drawn and the others their copies."""
    photographs = [photograph(size, seed) for seed in range(min(images, different))]
    photographs = [photographs[number % len(photographs)] for number in range(images)]
    out = doors(folder, "shards").out
    labels = [number % classes for number in range(images)]
    tar, offsets = _tar(photographs, labels)
    digest = hashlib.sha256(tar).hexdigest()
    keys = [f"train-{number:06d}" for number in range(images)]
    sha256s = [hashlib.sha256(data).hexdigest() for data in photographs]
    index = ShardIndex(
        path=SHARD,
        split="train",
        tar_bytes=len(tar),
        sha256=digest,
        plan_sha256="0" * 64,
        key=keys,
        source=keys,
        offset=offsets,
        size=[len(data) for data in photographs],
        ext=["jpg"] * images,
        labels=[[label] for label in labels],
        sha256s=sha256s,
        pixels_sha256=["0" * 64] * images,
        width=[size.width] * images,
        height=[size.height] * images,
    )
    entry = ShardEntry(
        path=SHARD,
        split="train",
        count=images,
        bytes=len(tar),
        sha256=digest,
        pixels=images * size.width * size.height,
    )
    files = [out.put(SHARD, tar), out.put(entry.index, index.encode())]
    return _committed(out, files, entry, classes)


def _committed(out: Out, files: list[File], entry: ShardEntry, classes: int) -> ShardSet:
    source = SourceFacts(kind="drawn", listing_sha256="0" * 64, listed=entry.count, quarantined=0, duplicates=0)
    names = tuple(f"class {number}" for number in range(classes))
    manifest = Manifest(classes=names, multi_label=False, shards=(entry,), source=source).encode()
    files.append(out.put("manifest.json", manifest))
    sha256 = hashlib.sha256(manifest).hexdigest()
    made = ShardSet(files=tuple(files), manifest_sha256=sha256, num_classes=classes, splits={"train": entry.count})
    record = Record(
        schema=1,  # type: ignore[call-arg]  # its alias
        node="shards",
        stage="ingest",
        recipe={},
        config={},
        inputs={},
        fingerprint="0" * 64,
        output=made.facts(),
        files=made.files,
        code="check",
        versions={},
        started="2026-01-01T00:00:00Z",
        seconds=1.0,
        attempt=out.attempt,
    )
    out.node.create("record.json", record.model_dump_json(by_alias=True).encode())
    found = load_artifact(out.node.uri)
    assert isinstance(found, ShardSet)
    return found


def _tar(photographs: list[bytes], labels: list[int]) -> tuple[bytes, list[int]]:
    """The tar, and where each image's bytes begin in it."""
    buffer, offsets, at = io.BytesIO(), [], 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (data, label) in enumerate(zip(photographs, labels, strict=True)):
            for ext, content in (("cls", str(label).encode()), ("jpg", data)):
                info = tarfile.TarInfo(f"train-{number:06d}.{ext}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                at = tar.offset - (len(content) + 511) // 512 * 512
            offsets.append(at)
    return buffer.getvalue(), offsets
