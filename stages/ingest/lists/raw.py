"""What a source lists, written into the store as it comes: by a task for each file, or in one go. No torch.

Labels are still as the source has them, rows in any order: `sort.py` puts both right once all is known.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from vitpipe.stages.contract import Out, StageContext
from vitpipe.stages.ingest.listing import FileDamage, Item, Items, Listing
from vitpipe.stages.ingest.parts.made import FOLDER, MadePart, Parts, finish, part_path
from vitpipe.stages.ingest.parts.rows import SHEET_ROWS, item_rows
from vitpipe.stages.ingest.parts.sheets import Sheets, write_sheets
from vitpipe.stages.ingest.sources.class_names import FileListing, Listed, Placing
from vitpipe.stages.ingest.sources.opened import SourceOfFiles, StreamedSource
from vitpipe.stages.ingest.sources.patterns import SourceFile

SAMPLE_ROWS = 4096
"""Of so many rows one name tells where in the order of all they are."""


class NameSample(NamedTuple):
    """One image of a file that stands for some of its neighbours."""

    item: Item
    """Name and labels alone."""
    rows: int
    """How many it stands for."""


@dataclass(frozen=True)
class RawFile:
    """Rows of a source, and what becomes of them once all files are known."""

    rows: Sheets
    samples: Sequence[NameSample]
    placing: Placing | None = None
    """None where rows are right as they are."""


@dataclass(frozen=True)
class RawListing:
    """All of a source."""

    listing: Listing
    """Without the images."""
    files: Sequence[RawFile]
    may_repeat: bool = False


@dataclass(frozen=True)
class ListTask:
    """One file to list."""

    out: Out
    opens: Callable[[SourceFile], Listed]
    file: SourceFile

    @property
    def path(self) -> str:
        """Another one once the file is another."""
        try:
            mark = self.file.mark()
        except OSError:  # whoever opens it says so
            mark = 0
        return part_path("listed", [*asdict(self.file).values(), mark])


def list_file(task: ListTask) -> MadePart:
    """List one file into the store."""
    items, told = task.opens(task.file)
    pieces = (items[start : start + SHEET_ROWS] for start in range(0, len(items), SHEET_ROWS))
    rows = write_sheets(task.out, f"{task.path}.rows", map(item_rows, pieces))
    facts = asdict(told) | {"samples": [(one.item.name, one.item.labels, one.rows) for one in _samples(items)]}
    return finish(task, facts, rows=rows)


def list_files(source: SourceOfFiles, ctx: StageContext, parts: Parts) -> RawListing:
    """All files, each by a task. UsageError as `SourceOfFiles.joined`."""
    opens = replace(source, files=()).list_file  # twenty thousand tasks: none needs the others' files
    tasks = [ListTask(ctx.out, opens, file) for file in source.files]
    once: dict[Any, Any] = {}  # of labels and lists of names, which a thousand files repeat
    found: dict[int, tuple[FileListing, RawFile]] = {}
    for task, made in parts.make(list_file, tasks, lambda task: f"list-{task.file.number}", "listed files"):
        told = _told(made.facts)
        labels = tuple(once.setdefault((type(label), label), label) for label in told.labels)
        told = replace(told, labels=labels, names=once.setdefault(told.names, told.names))
        samples = [_sample(*one) for one in made.facts["samples"]]
        found[task.file.number] = told, RawFile(made.files["rows"], samples)
    in_order = [found[file.number] for file in source.files]
    joined = source.joined([told for told, _ in in_order])
    pairs = zip(in_order, joined.placings, strict=True)
    files = [replace(file, placing=placing) for (_, file), placing in pairs]
    return RawListing(joined.listing, files, joined.may_repeat)


@dataclass(frozen=True)
class Renumbered:
    """Satisfies `class_names.Placing`: a number for each label."""

    numbers: tuple[int, ...]

    def __call__(self, image: Item) -> Item:
        """One image."""
        return image._replace(labels=tuple(self.numbers[label] for label in image.labels))


class Writer:
    """Satisfies `listing.ImageSink`: writes a file of rows whenever it has enough of them."""

    def __init__(self, out: Out, most: int) -> None:
        self._out, self._most, self._taken, self._items = out, most, 0, Items()
        self._sheets, self._samples = list[Sheets](), list[list[NameSample]]()
        self._placing: Placing | None = None

    def __len__(self) -> int:
        return self._taken + len(self._items)

    def append(self, item: Item) -> None:
        """Take one image behind the others."""
        self._items.append(item)
        if len(self._items) == self._most:
            self._write()

    def relabel(self, numbers: Sequence[int]) -> None:
        """Remember what the labels mean."""
        self._placing = Renumbered(tuple(numbers))

    def files(self) -> list[RawFile]:
        """All that was taken."""
        if len(self._items):
            self._write()
        return [RawFile(*pair, self._placing) for pair in zip(self._sheets, self._samples, strict=True)]

    def _write(self) -> None:
        count = len(self._items)
        pieces = (self._items[start : start + SHEET_ROWS] for start in range(0, count, SHEET_ROWS))
        path = f"{FOLDER}/streamed/{len(self._sheets):06d}.rows"
        self._sheets.append(write_sheets(self._out, path, map(item_rows, pieces)))
        self._samples.append(list(_samples(self._items)))
        self._taken, self._items = self._taken + count, Items()


def stream(source: StreamedSource, out: Out, most: int) -> RawListing:
    """All images of a source that no memory holds; `most` rows of them at a time."""
    writer = Writer(out, most)
    listing = source.stream(writer)
    return RawListing(listing, writer.files())


def write_listing(listing: Listing, out: Out, most: int) -> RawListing:
    """A listing that is at hand."""
    writer = Writer(out, most)
    for item in listing.items:
        writer.append(item)
    return RawListing(replace(listing, items=Items()), writer.files())


def _samples(items: Items) -> Iterator[NameSample]:
    for start in range(0, len(items), SAMPLE_ROWS):
        rows = min(SAMPLE_ROWS, len(items) - start)
        item = items.row(start + rows // 2)
        yield NameSample(Item(item.name, item.labels), rows)


def _sample(name: str, labels: Sequence[int], rows: int) -> NameSample:
    return NameSample(Item(name, tuple(labels)), rows)


def _told(facts: Mapping[str, Any]) -> FileListing:
    """A file's listing as it was before it was JSON."""
    own = {name: facts[name] for name in FileListing.__dataclass_fields__}
    own |= {name: tuple(own[name]) for name in ("labels", "notes", "names", "first_without")}
    return FileListing(**own | {"findings": tuple(FileDamage(**one) for one in own["findings"])})
