"""The files that a source is made of, as they were when it was listed and as they are now. No torch.

Looks at names, sizes and times; of the small files that say what others mean, at the content.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.stages.ingest.benchmarks.division import list_path
from vitpipe.stages.ingest.benchmarks.readers import READERS
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, Benchmark
from vitpipe.stages.ingest.config import BenchmarkSource, DigitsSource, FolderSource, GlyphsSource, IngestConfig
from vitpipe.stages.ingest.listing import Item, Items, Listing, Source
from vitpipe.stages.ingest.sources.files import FilesSource, ParquetSource
from vitpipe.stages.ingest.sources.folder_tree import FolderTree, Found
from vitpipe.stages.ingest.sources.glyph_classes import FONTS, font_path
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.ingest.sources.labels_file import read_text
from vitpipe.stages.ingest.sources.list_tasks import PartedSource
from vitpipe.stages.ingest.sources.patterns import Part, find_parts
from vitpipe.stages.settings import Settings
from vitpipe.stages.sighting import etag_mark, time_mark

SCIKIT_LEARN_DIGITS = "datasets/data/digits.csv.gz"
"""Where the package has them."""


@dataclass(frozen=True)
class Present:
    """What lies at a source now."""

    now: Inventory
    closed: bool
    """Whether only the files that were there before count."""
    kept_back: tuple[str, ...] = ()
    """What could not be looked at, each with the reason; `now` has it as it was."""


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


def present(config: IngestConfig, was: Inventory) -> Present:
    """The same files now.

    UsageError where the source, or all of its files, are gone or out of reach; StorageError and OSError likewise.
    """
    source, closed, kept_back = config.source, False, dict[str, str]()
    match source:
        case FolderSource(root=root, labels=labels):
            files = _with_kept_back(FolderTree(root, labels).candidates(kept_back), kept_back, was)
            if labels is None and (source.limit or source.subset):
                files = iter(_drawn(list(files), source))
            found, closed = Inventory.of(files, None, "images"), labels is not None
        case FilesSource(patterns=urls):
            found = _of_parts(find_parts(urls, _suffix(source), all_there=False), {})
        case BenchmarkSource(name=name, root=root):
            names = {name for name, _, _ in was} | set(_lists(REGISTRY[name], Path(root)))
            rows = _with_kept_back(_stated(Path(root), names, kept_back), kept_back, was)
            found = Inventory.of(rows)
        case _:
            return Present(Inventory.of((), _texts(source)), True)
    if len(was) and not len(found):
        raise _nothing(config)
    texts, unread = _texts_now(source, was.texts)
    words = (*(f"{name}: {why}" for name, why in sorted(kept_back.items())), *unread)
    return Present(replace(found, texts=texts), closed, words)


def _with_kept_back(files: Iterable[Found], kept_back: Mapping[str, str], was: Inventory) -> Iterator[Found]:
    """What cannot be seen is taken to be as it was."""
    yield from files
    if kept_back:
        yield from (Found(*row) for row in was if f"{row[0]}/".startswith(tuple(kept_back)))


def _texts_now(source: Settings, was: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """As `_texts`, without one that is gone; and what is kept back, as it was."""
    try:
        return _texts(source), ()
    except UsageError as error:
        is_there = isinstance(error.__cause__, UnicodeDecodeError | IsADirectoryError)
        return {name: error.found for name in was if is_there}, ()
    except StorageError as error:
        return was, tuple(f"{name}: {error.found}" for name in was)


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
    return Inventory.of(_stated(root, names, None), texts)


def _stated(root: Path, names: Iterable[str], kept_back: dict[str, str] | None) -> Iterator[Found]:
    for name in names:
        try:
            state = os.stat(root / name)
        except PermissionError as error:
            if kept_back is None:
                raise
            kept_back[f"{name}/"] = str(error.strerror)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
        else:
            yield Found(name, state.st_size, time_mark(state))


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
