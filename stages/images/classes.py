"""Lists of class names: how two lists differ, in words; which names are nearly the same; and the names of a model.

Knows names and their numbers; whether to unite, report or refuse lists is up to the caller. No torch.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Artifact

LABELS = "labels.json"
NAMED = 3
"""Names that a message lists."""
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_DIGITS = re.compile(r"[0-9]+")


def difference(one: Sequence[str], other: Sequence[str], which: tuple[str, str] = ("the first", "the second")) -> str:
    """Say how two unequal lists differ: names that only one has, else the number from which their order differs."""
    only = [sorted(set(here) - set(there)) for here, there in ((one, other), (other, one))]
    differences = [f"only {whose} has {some_names(names)}" for whose, names in zip(which, only, strict=True) if names]
    if not differences:
        place = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        both = f"{one[place]!r} and {other[place]!r}"
        return f"the same {len(one)} names in another order, from number {place} on: {both}"
    near = nearly(*only)
    return f"{len(one)} and {len(other)}; {'; '.join(differences)}{f' ({near})' if near else ''}"


def nearly(names: Iterable[str], others: Iterable[str]) -> str:
    """Find a name that is nearly one of `others`, in words; empty when none is."""
    forms, names = {alike(other): other for other in others}, list(names)
    for name in names:
        if (found := forms.get(alike(name))) is not None:
            return _nearly(name, found)
    for name in names[:NAMED]:  # comparing takes a while for each
        if close := difflib.get_close_matches(name, forms.values(), n=1, cutoff=0.8):
            return f"{name!r} is near {close[0]!r}"
    return ""


def alike(name: str) -> str:
    """Fold a name, so that names that differ only in case, spaces, underscores, leading zeros or Unicode form agree."""
    if name.isascii():
        folded = name.lower()
    else:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _seen(name)).casefold())
    folded = " ".join(folded.replace("_", " ").split())
    return str(int(folded)) if _DIGITS.fullmatch(folded) else folded


def pairs_alike(names: Iterable[str]) -> list[str]:
    """Find names of one list that are nearly the same, and say how each two differ."""
    first: dict[str, str] = {}
    return [
        _nearly(other, name)
        for name in names
        if (other := first.setdefault(alike(name), name)) is not name and other != name
    ]


def same_to_the_eye(names: Iterable[str]) -> list[tuple[str, str]]:
    """Find different names that look the same: one text in two Unicode forms, or with invisible characters."""
    first: dict[str, str] = {}
    return [(other, name) for name in names if (other := first.setdefault(_seen(name), name)) != name]


def look_alike(name: str, other: str) -> str:
    """Say why two different names look the same."""
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other):
        return f"{name!a} and {other!a} are one name in two Unicode forms"
    return f"{name!a} and {other!a} look the same, but for characters that are not seen"


def _seen(name: str) -> str:
    """A name as an eye sees it: in composed form (NFC), without format characters such as U+200B or U+FEFF."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", "".join(one for one in name if unicodedata.category(one) != "Cf"))


def _nearly(name: str, other: str) -> str:
    if name != other and _seen(name) == _seen(other):
        return look_alike(name, other)
    return f"{name!r} is nearly {other!r}"


def names_by_number(labels: Mapping[str, Any]) -> dict[int, str]:
    """Read an `id2label` as names by class number, in the order of numbers. ValueError naming a key that is none."""
    wrong = [key for key in labels if not _NUMBER.fullmatch(str(key))]
    if wrong:
        raise ValueError(f"the key {wrong[0]!r} of its names is no number of a class")
    return {number: str(labels[str(number)]) for number in sorted(int(key) for key in labels)}


def names_in_order(labels: Mapping[str, Any]) -> tuple[str, ...]:
    """Read an `id2label` as a list; a name's place is its number. ValueError naming a number that has no name."""
    names = names_by_number(labels)
    if names and max(names) != len(names) - 1:
        lacking = next(number for number in range(max(names)) if number not in names)
        raise ValueError(f"{len(names)} names for the classes {min(names)} to {max(names)}: none for class {lacking}")
    return tuple(names.values())


def moved_name(names: Mapping[int, str], others: Mapping[int, str]) -> str | None:
    """Find a name that both lists have under different numbers, so that a number means another class in each."""
    numbers = {name: number for number, name in names.items()}
    for number, name in others.items():
        if name in numbers and names.get(number) != name:
            return name
    return None


def some_names(names: Sequence[str]) -> str:
    """Quote the first few names for a message."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more


def names_of(weights: Artifact) -> dict[int, str]:
    """Read the names of a model's classes from `labels.json`, if it has one. IntegrityError for no list of classes."""
    if not weights.has(LABELS):
        return {}
    try:
        return names_by_number(weights.read_json(LABELS).get("id2label") or {})
    except ValueError as error:
        raise IntegrityError(f"read {LABELS} of {weights.uri}", str(error), "fetch or convert it again") from error
