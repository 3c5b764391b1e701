"""What a reader of official files finds: one entry an image, before any division. Knows no format."""

import csv
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.decode import encoded
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.scans import refuse_many_scans
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.reading import UnreadableImage

UNREADABLE = (
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ImportError, NotImplementedError,
    MemoryError, OverflowError, RecursionError, struct.error, zlib.error, zipfile.BadZipFile, tarfile.TarError,
    pickle.UnpicklingError, csv.Error,
)  # fmt: skip
"""What the libraries that read official formats raise on a damaged file."""


@dataclass(frozen=True, slots=True)
class OfficialImage:
    """One image of the official files."""

    name: str
    """Unique among all splits; for image files their place below the root."""
    split: str
    """As the authors cut it."""
    labels: tuple[int, ...]
    """One class; several, or none, where the data set is multi-label."""
    key: str
    """What TensorFlow Datasets calls it: its hash is their order."""
    size: int = 0
    """Bytes, where they are known without reading."""
    place: tuple[int, ...] = ()
    """Where its reader finds it in a file of many."""


@dataclass(frozen=True)
class OfficialListing:
    """All images of the official files, in the files' own order."""

    entries: Sequence[OfficialImage]
    classes: tuple[str, ...]
    multi_label: bool = False


def read_file(benchmark: Benchmark, root: Path, item: Item) -> bytes:
    """The image file itself, as it is."""
    try:
        return (root / item.name).read_bytes()
    except OSError as error:
        raise UnreadableImage(f"it cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Reader:
    """One official format: what is there, and one image's bytes."""

    listed: Callable[[Benchmark, Path], OfficialListing]
    """IntegrityError naming a file that is not what its format says."""
    read: Callable[[Benchmark, Path, Item], bytes] = read_file
    """BadImage where this one image cannot be had."""
    file_of: Callable[[Path, Item], str] = lambda root, item: item.name
    """The file below the root that an image lies in."""
    files: bool = True
    """Whether the entries are image files below the root, rather than rows of a file."""
    costly: bool = False
    """Whether `read` prepares images, so that doing it twice is worse than keeping them a while."""


def decoded(benchmark: Benchmark, root: Path, item: Item) -> Image.Image:
    """An image file of any format Pillow knows, as RGB. BadImage where it is none."""
    data = read_file(benchmark, root, item)
    refuse_many_scans(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"it cannot be decoded: {error}") from error


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Pixels (H, W) or (H, W, 3) as a PNG, true to the pixel."""
    return encoded(Image.fromarray(pixels), "PNG")


def numbered(split: str, labels: Iterable[int], key: str = "{}") -> Iterator[OfficialImage]:
    """Images that are rows of an array, named by their number; `key` is a pattern of it."""
    for number, label in enumerate(labels):
        yield OfficialImage(f"{split}/{number:06d}", split, (label,), key=key.format(number))


@contextmanager
def reading(path: Path, found: str = "") -> Iterator[None]:
    """Around code that reads an official file: IntegrityError for what its library raises on a damaged one."""
    try:
        yield
    except UNREADABLE as error:
        raise damaged(path, f"{found}: {error!r}" if found else str(error)) from error


def damaged(path: Path, found: str) -> IntegrityError:
    """A file that is not what its format says."""
    return IntegrityError(f"read {path}", found, "get the official file again")


def list_lines(path: Path) -> list[str]:
    """Lines of an official list, blank ones and comments aside. IntegrityError where it is no text."""
    with reading(path):
        text = path.read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
