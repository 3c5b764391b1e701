"""What is a class: a label as number or name, names in order, and what one file of a source says of them. No torch."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.listing import FileDamage, Item, Items, some

Label = int | str
"""As a source writes it: the number of a class, or its name."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_EXACT = 2**53
"""From here on floats skip integers."""
_PLAIN = re.compile(r"\d+")


def class_name(label: Any) -> str:
    """A class name. A number is taken only as a plain one: -1 or 1.5 is a mistake, not a class. ValueError in words.

    NaN is how tables write that there is none, and whole floats how they write numbers beside it. Texts mean
    themselves: "nan" is a name like any other, and "1.0" a mistake, for nothing says which number it was.
    """
    label = _whole(label)
    if isinstance(label, float | Decimal) and not math.isfinite(label):
        raise ValueError(f"no label: {label!r}")
    text = str(label).strip() if isinstance(label, str | int | float | Decimal) and not isinstance(label, bool) else ""
    if not text:
        raise ValueError(f"no label: {label!r}")
    if _NUMBER.fullmatch(text) and not _PLAIN.fullmatch(text):
        raise ValueError(f"the label {label!r}, a number that is no class")
    return text


def _whole(label: Any) -> Any:
    """Floats and decimals that are whole, as tables keep integers beside gaps, as integers; others as they are."""
    if isinstance(label, float | Decimal) and math.isfinite(label) and label == int(label) and 0 <= label < _EXACT:
        return int(label)
    return label


def class_label(label: Any) -> Label:
    """As `class_name`; what is written as a number stays one, whatever the classes are called."""
    text, label = class_name(label), _whole(label)
    return label if isinstance(label, int) else text


def is_number(label: Label) -> bool:
    """Whether it is a number, be it as text."""
    return isinstance(label, int) or _PLAIN.fullmatch(label) is not None


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """By number when all are numbers, else by name."""
    if all(_PLAIN.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image of a source with its classes as the source writes them, or with the reason that it is set aside."""

    name: str
    labels: tuple[Label, ...]
    size: int = 0
    place: tuple[int, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Classes:
    """A list of classes; a number is a place in it, a text a name, or a number where no class is called so."""

    names: tuple[str, ...]
    numbers: dict[str, int] = field(default_factory=dict)
    """The number of each name, and of what else a class is called."""

    @classmethod
    def of(cls, names: Sequence[str], whose: str = "") -> "Classes":
        """UsageError for a name that stands twice."""
        if len(set(names)) < len(names):
            twice = [name for name, count in Counter(names).items() if count > 1]
            asked = f"number the classes{whose and f' of {whose}'}"
            raise UsageError(asked, f"{some(sorted(twice))} stand more than once", "give each class one name")
        return cls(tuple(names), {name: number for number, name in enumerate(names)})

    def number(self, label: Label) -> int:
        """ValueError in words for a label that is no class."""
        if label in self.numbers:  # a name: no number is a key
            return self.numbers[str(label)]
        if is_number(label) and int(label) < len(self.names):
            return int(label)
        raise self.unknown(label)

    def unknown(self, label: Label) -> ValueError:
        """The label is no class."""
        count = len(self.names)
        return ValueError(f"the label {str(label)!r} is none of the {count} classes (0 to {count - 1}, or their names)")


@dataclass(frozen=True)
class FileListing:
    """What one file of a source holds."""

    images: Items
    """Their labels are places in `labels`."""
    labels: tuple[Label, ...]
    """Those that occur, as the source writes them."""
    several: bool = False
    """Whether its images may have several classes."""
    findings: tuple[FileDamage, ...] = ()
    notes: tuple[str, ...] = ()
    file: str = ""
    """Its name in the source."""
    names: tuple[str, ...] = ()
    """What the file itself calls the classes 0, 1, ...; empty where it does not say."""


def labels_apart(images: Iterable[Labelled]) -> tuple[Items, tuple[Label, ...]]:
    """The images with places in the place of labels, and the labels that occur."""
    places: dict[Label, int] = {}
    items = Items()
    for one in images:
        labels = tuple(places.setdefault(label, len(places)) for label in one.labels)
        items.append(Item(one.name, labels, None, one.size, one.place, one.fault))
    return items, tuple(places)


def split_lines(text: str) -> list[str]:
    """Ended by a line feed, with or without a carriage return: `str.splitlines` cuts names in two, as at U+2028.

    In a text without line feeds, carriage returns alone end lines.
    """
    text = text if "\n" in text else text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def parse_names(text: str) -> tuple[str, ...]:
    """Class names of a file: a JSON list, or one a line. ValueError in words for other JSON, and for a blank line."""
    if text.lstrip().startswith(("[", "{")):
        content = json.loads(text)
        if not isinstance(content, list):
            raise ValueError("it holds a JSON object, whose order is no numbering")
        return tuple(class_name(name) for name in content)
    lines = split_lines(text.rstrip())
    if blank := [number for number, line in enumerate(lines, 1) if not line.strip()]:
        raise ValueError(f"line {blank[0]} is blank: every name below it would be that of another number")
    return tuple(line.strip() for line in lines)
