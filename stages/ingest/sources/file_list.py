"""What the sources that are lists of files have in common: `urls`, classes, and the files that lie there. No torch."""

from abc import abstractmethod
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.hub_names import data_place, data_place_or_none, is_hub
from vitpipe.stages.bounds import Few
from vitpipe.stages.ingest.sources.source_settings import SourceCount, SourceSettings, Splits
from vitpipe.stages.settings import Place

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.ingest.sources.class_names import Classes
    from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory
    from vitpipe.stages.ingest.sources.opened import SourceOfFiles
    from vitpipe.stages.ingest.sources.patterns import SourceFile


def frozen(listed: Any) -> Any:
    """A tuple of a list: where a whole config was read from JSON by an outer validator, its lists are lists by now."""
    return tuple(listed) if isinstance(listed, list) else listed


SEPARATOR = "::"
"""Between patterns in one text, as webdataset has it."""


def _several(urls: str | tuple[str, ...]) -> tuple[str, ...]:
    patterns = tuple(part for url in ((urls,) if isinstance(urls, str) else urls) for part in url.split(SEPARATOR))
    if not patterns or not all(patterns):
        raise ValueError("`urls` names nothing")
    for url in patterns:
        scheme, separator, _ = url.partition("://")
        if url.lower().startswith("pipe:") or (separator and scheme not in ("file", "s3", "hf")):
            raise ValueError(
                f"{url!r} is neither a local path nor s3://bucket/... nor hf://owner/name...; nothing else is opened"
            )
    return tuple(map(data_place, patterns))


Urls = Annotated[str | tuple[str, ...], BeforeValidator(frozen), AfterValidator(_several), Place(SEPARATOR)]


class FilesSource(SourceSettings):
    """A source that is a list of files, its classes found in them. A subclass says which files, and opens them."""

    reads_little: ClassVar[bool] = False
    """Whether the labels of a file are had without most of its bytes."""

    urls: Urls
    """One pattern or several, in a list or joined by `::`: names, braces as webdataset has them
    (`{train,val}-{000000..000099}.tar`), globs, or folders; local, `s3://`, or `hf://owner/name[@revision][/path]`, a
    data set on the Hugging Face Hub. Names of local files are part of the recipe, their folder is not."""
    classes: Few | None = None
    """Number of classes; a number of this or above is a bad label. Left out, the classes are those that occur."""
    class_names: Annotated[str | None, Place(), AfterValidator(data_place_or_none)] = None
    """A file of all class names, one a line or a JSON list; numbers are places in it, and names that the data bring
    with them are looked up in it."""

    labels: Literal["none"] | None = None
    """`none`: no image has a class, whatever stands beside it; only masked patches are pretrained on such a set."""

    @model_validator(mode="after")
    def _classes_are_said_once(self) -> Self:
        if self.unlabelled and (self.classes is not None or self.class_names is not None):
            raise ValueError("labels: none has no classes: leave classes and class_names out")
        if self.classes is not None and self.class_names is not None:
            raise ValueError("give classes or class_names, not both: the file says how many there are")
        return self

    @property
    @abstractmethod
    def suffix(self) -> str:
        """How the names of its files end, where `urls` names a folder."""

    @abstractmethod
    def open_files(self, files: "tuple[SourceFile, ...]", fixed: "Classes | None") -> "SourceOfFiles":
        """The source of these files; `fixed` are the classes that the config gives."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """`urls` as a list, even of one."""
        return (self.urls,) if isinstance(self.urls, str) else self.urls

    @property
    def is_elsewhere(self) -> bool:
        """Whether some of its files lie in a bucket or on the Hub."""
        return any(url.startswith(("s3://", "hf://")) for url in self.patterns)

    @property
    def location(self) -> str:
        """The patterns."""
        return ", ".join(self.patterns)

    @property
    def makes_bytes(self) -> bool:
        """False: they stand in the files."""
        return False

    def open(self, splits: Splits) -> "SourceOfFiles":
        """The files that are there now. UsageError for a pattern that nothing answers to, and for odd class names."""
        from vitpipe.stages.ingest.sources.patterns import find_files

        fixed = self._fixed_classes()
        return self.open_files(find_files(self.patterns, self.suffix), fixed)

    def _fixed_classes(self) -> "Classes | None":
        from vitpipe.stages.ingest.sources.class_names import Classes, parse_names
        from vitpipe.stages.ingest.sources.text_file import read_text

        if self.classes is not None:
            return Classes.of([str(number) for number in range(self.classes)])
        if self.class_names is None:
            return None
        try:
            names = parse_names(read_text(self.class_names))
            if not names:
                raise ValueError("it is empty")
        except ValueError as error:
            do = "one name a line, or a JSON list"
            raise UsageError(f"read the class names {self.class_names}", str(error), do) from error
        return Classes.of(names, self.class_names)

    def count(self, splits: Splits) -> SourceCount | str:
        """The first file is opened, the others count by their size."""
        from vitpipe.stages.ingest.listing import some
        from vitpipe.stages.ingest.sources.folder_layout import splits_mixed
        from vitpipe.stages.ingest.sources.patterns import find_files

        if self.is_elsewhere and not (self.reads_little and all(map(is_hub, self.patterns))):
            if not any(url.startswith("s3://") for url in self.patterns):
                find_files(self.patterns, self.suffix)
            return f"counted when {some(self.patterns)} are listed"
        source = self.open(splits)
        _, first = source.list_file(source.files[0])
        if len(source.files) == 1:
            source.joined([first])  # refuses a source without an image
        known = (replace(source, files=source.files[:1]) if self.is_elsewhere else source).known_classes()
        names = None if known is None else known.names
        total = sum(file.size for file in source.files)
        count = round(first.count * total / max(source.files[0].size, 1))
        notes = (f"reckoned from the first of {len(source.files)} files",) if len(source.files) > 1 else ()
        notes = (*notes, *splits_mixed(self.patterns, [file.name for file in source.files]))
        each_bytes, num_classes = total / max(count, 1), None if names is None else len(names)
        return SourceCount(count, each_bytes, num_classes=num_classes, class_names=names, notes=notes)

    def is_there(self) -> bool:
        """Whether some pattern names a file."""
        return bool(self._files_there())

    def text_digests(self) -> dict[str, str]:
        """The file of class names, if there is one."""
        from vitpipe.stages.ingest.sources.text_file import read_text

        if self.class_names is None:
            return {}
        return {"the class names file": sha256(read_text(self.class_names).encode()).hexdigest()}

    def files_now(self, was: "Inventory") -> "FilesNow":
        """Whatever the patterns name."""
        from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory

        return FilesNow(Inventory.of_files(self._files_there()))

    def _files_there(self) -> "tuple[SourceFile, ...]":
        from vitpipe.stages.ingest.sources.patterns import find_files

        return find_files(self.patterns, self.suffix, all_there=False)
