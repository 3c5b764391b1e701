"""Pictures with the statistics of photographs (amplitudes fall as 1/f, edges, grain), as shards, for measuring readers.

No photograph can be downloaded here; what matters for a decoder is how many bits a block takes, and that is met.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from photos import ingest, write

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.gpu_check.drawn import QUALITY, PhotoSize, picture
from vitpipe.stages.record import load_artifact

SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


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
    file = io.BytesIO()
    drawn = picture(PhotoSize(kind.width, kind.height, kind.slope), seed)
    (drawn if kind.form == "JPEG" else drawn.convert("RGB")).save(file, kind.form, quality=QUALITY)
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
