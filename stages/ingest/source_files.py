"""The files that a source is made of, as they were when it was listed and as they are now. No torch.

Looks at names, sizes and times; of the small files that say what others mean, at the content.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from infra.errors import UsageError
from stages.ingest.benchmarks.division import list_path
from stages.ingest.benchmarks.readers import READERS
from stages.ingest.benchmarks.registry import REGISTRY, Benchmark
from stages.ingest.config import BenchmarkSource, DigitsSource, FolderSource, GlyphsSource, IngestConfig
from stages.ingest.files_config import FilesSource, ParquetSource
from stages.ingest.glyph_classes import FONTS, font_path
from stages.ingest.inventory import Inventory
from stages.ingest.labels_file import read_text
from stages.ingest.listing import Item, Items, Listing, Source
from stages.ingest.parts import PartedSource
from stages.ingest.patterns import Part, find_parts
from stages.ingest.source_folder import FolderTree, Found
from stages.settings import Settings
from stages.sighting import etag_mark, time_mark

SCIKIT_LEARN_DIGITS = "datasets/data/digits.csv.gz"
"""Where the package has them."""


def taken(config: IngestConfig, source: Source, listing: Listing) -> Inventory:
    """The files of what was just listed."""
    texts = _texts(config.source)
    if isinstance(source, FolderTree):
        return Inventory.of_items(listing.items, texts)
    if isinstance(source, PartedSource):
        return _of_parts(source.files, texts)
    if isinstance(config.source, BenchmarkSource):
        root = Path(config.source.root)
        return _of_paths(root, _used(REGISTRY[config.source.name], root, listing.items), texts)
    return Inventory.of((), texts)


def present(config: IngestConfig, was: Inventory) -> tuple[Inventory, bool]:
    """The same files now, and whether only those that were there before count.

    UsageError where the source, or all of its files, are gone or out of reach; StorageError and OSError likewise.
    """
    source, texts = config.source, _texts(config.source)
    match source:
        case FolderSource(root=root, labels=labels):
            files: Iterable[Found] = FolderTree(root, labels).candidates()
            if labels is None and (source.limit or source.subset):
                files = _drawn(list(files), source)
            found, closed = Inventory.of(files, texts, "images"), labels is not None
        case FilesSource(patterns=urls):
            found, closed = _of_parts(find_parts(urls, _suffix(source), all_there=False), texts), False
        case BenchmarkSource(name=name, root=root):
            names = {name for name, _, _ in was} | set(_lists(REGISTRY[name], Path(root)))
            found, closed = _of_paths(Path(root), names, texts), False
        case _:
            return Inventory.of((), texts), True
    if len(was) and not len(found):
        raise _nothing(config)
    return found, closed


def must_be_there(config: IngestConfig) -> None:
    """UsageError where nothing of the source's files is in reach."""
    match config.source:
        case FilesSource(patterns=urls) as files:
            there = bool(find_parts(urls, _suffix(files), all_there=False))
        case BenchmarkSource(root=root):
            there = os.path.isdir(root)
        case _:
            there = True
    if not there:
        raise _nothing(config)


def _nothing(config: IngestConfig) -> UsageError:
    return UsageError(f"look at {place(config)}", "nothing of it is there, or on this machine")


def _suffix(source: FilesSource) -> str:
    return ".parquet" if isinstance(source, ParquetSource) else ".tar"


def place(config: IngestConfig) -> str:
    """Where the source lies, for a message."""
    match config.source:
        case FolderSource(root=root) | BenchmarkSource(root=root):
            return root
        case FilesSource(patterns=urls):
            return ", ".join(urls)
        case source:
            return f"the {source.kind} of the installed packages"


def _drawn(files: Sequence[Found], source: FolderSource) -> list[Found]:
    """Those that an ingest of a part would take."""
    items = Items(Item(file.name, (), None, file.size) for file in files)
    names = {item.name for item in Listing(items, ()).part(source.limit, source.subset).items}
    return [file for file in files if file.name in names]


def _of_parts(parts: Iterable[Part], texts: dict[str, str]) -> Inventory:
    return Inventory.of(((part.name, part.size, _mark(part)) for part in parts), texts)


def _mark(part: Part) -> int:
    if not part.is_local:
        return etag_mark(part.version)
    return time_mark(os.stat(part.uri.removeprefix("file://")))


def _of_paths(root: Path, names: Iterable[str], texts: dict[str, str]) -> Inventory:
    """Those of the names below the root that are files."""

    def rows() -> Iterator[tuple[str, int, int]]:
        for name in names:
            try:
                state = os.stat(root / name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield name, state.st_size, time_mark(state)

    return Inventory.of(rows(), texts)


def _used(benchmark: Benchmark, root: Path, items: Iterable[Item]) -> set[str]:
    """The official files, the lists that fix a split, and the images or the tars that hold them, by name."""
    names = {file.path for file in benchmark.files} | set(_lists(benchmark, root))
    if READERS[benchmark.reader].files:
        return names | {"/".join(item.name.split("/")[:2]) if item.place else item.name for item in items}
    return names or {entry.name for entry in os.scandir(root) if entry.is_file() and entry.name[0] != "."}


def _lists(benchmark: Benchmark, root: Path) -> list[str]:
    paths = [list_path(benchmark, split, root) for split in benchmark.parts]
    return [path.name for path in paths if path.is_file()]


def _texts(source: Settings) -> dict[str, str]:
    """Digests of small files whose content decides what the images are. UsageError for one that is gone."""
    match source:
        case FolderSource(labels=str() as labels):
            return {"the labels file": _sha256(read_text(labels).encode())}
        case FilesSource(class_names=str() as names):
            return {"the class names file": _sha256(read_text(names).encode())}
        case DigitsSource():
            path = _digits_path()
            return {path.name: _sha256(path.read_bytes())}
        case GlyphsSource():
            return {f"{font}.ttf": _sha256(font_path(font).read_bytes()) for font in FONTS}
    return {}


def _digits_path() -> Path:
    spec = find_spec("sklearn")  # found, not imported: only its file is needed
    path = Path(spec.origin if spec and spec.origin else "").parent / SCIKIT_LEARN_DIGITS
    if not path.is_file():
        raise UsageError("look at the digits", f"scikit-learn, which brings them as {path.name}, is not installed here")
    return path


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
