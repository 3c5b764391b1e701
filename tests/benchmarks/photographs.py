"""Pictures with the statistics of photographs (amplitudes fall as 1/f, edges, grain), as shards, for measuring readers.

No photograph can be downloaded here; what matters for a decoder is how many bits a block takes, and that is met.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from photos import ingest, write
from PIL import Image

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.record import load_artifact

QUALITY = 90
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
GRAIN = 1.0


@dataclass(frozen=True)
class Kind:
    """A size of photograph, and how many are measured."""

    name: str
    width: int
    height: int
    slope: float
    """How fast amplitudes fall with frequency; gives files of 71 and 295 KB."""
    images: int
    form: str = "JPEG"


KINDS = (Kind("500x375", 500, 375, 1.46, 384), Kind("1600x1200", 1600, 1200, 1.75, 48))


OTHER_FORMATS = tuple(
    Kind(f"{name}, {form}", width, height, slope, images, form)
    for form in ("PNG", "WEBP")
    for name, width, height, slope, images in (("500x375", 500, 375, 1.46, 96), ("1600x1200", 1600, 1200, 1.75, 16))
)


def photograph(kind: Kind, seed: int) -> bytes:
    """One file; a JPEG is 4:2:0, a WebP lossy of the same quality."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(kind.height)[:, None], np.fft.rfftfreq(kind.width)[None]
    frequency = np.hypot(rows, columns) + 1 / kind.width
    planes = []
    for strength in (45.0, 12.0, 12.0):
        spectrum = np.fft.rfft2(rng.standard_normal((kind.height, kind.width))) / frequency**kind.slope
        plane = np.fft.irfft2(spectrum, (kind.height, kind.width))
        planes.append(strength * plane / plane.std())
    edges = np.zeros((kind.height, kind.width))
    y, x = np.mgrid[: kind.height, : kind.width]
    for _ in range(6):
        slope, at, step = rng.normal(0, 1.5), rng.random() * kind.width, rng.normal(0, 25)
        edges += step * (x - at > slope * (y - kind.height / 2))
    planes[0] += edges + GRAIN * rng.standard_normal(edges.shape)
    pixels = np.stack([120 + planes[0], 128 + planes[1], 128 + planes[2]], axis=-1).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(pixels, "YCbCr")
    (picture if kind.form == "JPEG" else picture.convert("RGB")).save(file, kind.form, quality=QUALITY)
    return file.getvalue()


def photograph_folder(root: Path, kind: Kind) -> Path:
    """`root/class-k/n.jpg`, or another format's suffix."""
    for number in range(kind.images):
        write(root / f"class-{number % 4}/{number:04d}.{SUFFIXES[kind.form]}", photograph(kind, number))
    return root


def photograph_shards(root: Path, kind: Kind, restart_intervals: bool) -> ShardSet:
    """The folder `root/kind`, made and ingested if need be."""
    node = kind.name.replace(", ", "-").lower() + ("-restarts" if restart_intervals else "")
    committed = root / "store/test" / node
    if (committed / "record.json").exists():
        found = load_artifact(f"file://{committed}")
        assert isinstance(found, ShardSet)
        return found
    source = root / kind.name
    if not source.exists():
        photograph_folder(source, kind)
    config = {"source": {"kind": "folder", "root": str(source)}, "restart_intervals": restart_intervals}
    return ingest(root, config, node=node)
