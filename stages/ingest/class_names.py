"""What is a class: the text of a label as its name, names in order, and labels as places among them. No torch."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.errors import UsageError
from stages.ingest.listing import Finding, Item, Items, Listing, some

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_PLAIN = re.compile(r"\d+")


def class_name(label: Any) -> str:
    """A class name. A number is taken only as a plain one: -1 or 1.0 is a mistake, not a class. ValueError in words."""
    text = str(label).strip() if isinstance(label, str | int | float) and not isinstance(label, bool) else ""
    if not text:
        raise ValueError(f"no label: {label!r}")
    if _NUMBER.fullmatch(text) and not _PLAIN.fullmatch(text):
        raise ValueError(f"the label {label!r}, a number that is no class")
    return text


def class_number(label: Any) -> str:
    """As `class_name`, of what must be a number: without leading zeros."""
    text = class_name(label)
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"the label {label!r}, which is no number of a class")
    return str(int(text))


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """By number when all are numbers, else by name."""
    if all(_PLAIN.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image of a source with its classes as the source writes them, or with the reason that it is set aside."""

    name: str
    labels: tuple[str, ...]
    size: int = 0
    place: tuple[int, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Classes:
    """The classes that a config or a schema fixes beforehand; labels are their names or their places."""

    names: tuple[str, ...]
    numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str]) -> "Classes":
        """UsageError for a name that stands twice."""
        twice = sorted({name for name in names if list(names).count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise UsageError("number the classes", f"{some(twice)} stand more than once", "give each class one name")
        return cls(tuple(names), {name: number for number, name in enumerate(names)})

    def number(self, label: str) -> int:
        """ValueError in words for a label that is no class."""
        if label in self.numbers:
            return self.numbers[label]
        if _PLAIN.fullmatch(label) and int(label) < len(self.names):
            return int(label)
        most = len(self.names) - 1
        raise ValueError(f"the label {label!r} is none of the {len(self.names)} classes (0 to {most}, or their names)")


@dataclass(frozen=True)
class PartListing:
    """What one file of a source holds."""

    images: Items
    """Their labels are places in `labels`."""
    labels: tuple[str, ...]
    """Those that occur, as the source writes them."""
    several: bool = False
    """Whether its images may have several classes."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    classes: Classes | None = None
    """Where the file itself fixes them."""

    @classmethod
    def of(
        cls,
        images: Iterable[Labelled],
        several: bool,
        findings: tuple[Finding, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> "PartListing":
        """With the labels put aside."""
        places: dict[str, int] = {}
        items = Items(
            Item(one.name, tuple(places.setdefault(label, len(places)) for label in one.labels), None, one.size,
                 one.place, one.fault)
            for one in images
        )  # fmt: skip
        return cls(items, tuple(places), several, findings, notes)


def parse_names(text: str) -> tuple[str, ...]:
    """Class names of a file: a JSON list, or one a line. ValueError for other JSON."""
    if text.lstrip().startswith("["):
        return tuple(class_name(name) for name in json.loads(text))
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def joined(parts: Iterable[PartListing], classes: Classes | None) -> Listing:
    """One listing of all files. Without `classes` they are the labels that occur, by number or by name."""
    parts = list(parts)
    notes = [note for part in parts for note in part.notes]
    if classes is None:
        classes = Classes.of(sorted_classes({label for part in parts for label in part.labels}))
        notes += _renumbered(classes.names)
    findings = tuple(sorted((one for part in parts for one in part.findings), key=lambda one: one.name))
    items = Items(item for part in parts for item in _numbered(part, classes)).by_name()
    return Listing(items, classes.names, any(part.several for part in parts), tuple(notes), findings)


def _numbered(part: PartListing, classes: Classes) -> Iterator[Item]:
    """Its images, labels as numbers of classes; set aside where one is none."""
    numbers = [_number(label, classes) for label in part.labels]
    for image in part.images:
        found = [numbers[label] for label in image.labels]
        faults = [str(one) for one in found if isinstance(one, ValueError)]
        labels = () if faults else tuple(sorted({one for one in found if isinstance(one, int)}))
        yield image._replace(labels=labels, fault=faults[0] if faults else image.fault)


def _number(label: str, classes: Classes) -> int | ValueError:
    try:
        return classes.number(label)
    except ValueError as error:
        return error


def _renumbered(names: Sequence[str]) -> list[str]:
    if not names or not all(_PLAIN.fullmatch(name) for name in names) or int(names[-1]) == len(names) - 1:
        return []
    found = f"the labels 0 to {names[-1]} have {len(names)} classes that occur: they were numbered anew, in order"
    return [f"{found}; give `classes: {int(names[-1]) + 1}` to keep the numbers"]
