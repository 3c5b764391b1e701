"""Which output of a head each class of a data set is: the one that has its name, or the name that a map gives it.

ImageNet's classes are WordNet ids here; who calls them by their words or their numbers is understood. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, ShardSet
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.images.classes import nearly, some_names
from vitpipe.stages.images.manifest import known_names
from vitpipe.stages.images.wordnet import ids_of_words, imagenet_ids, with_words
from vitpipe.stages.record import read_record

ONCE_NUMBERED = ("imagenet-real", "imagenet-v2")
"""Benchmarks whose classes earlier versions called by their numbers, as their files do."""
ALL_NUMBERS = "classes are matched by number, as neither side names them: that both count the same classes is assumed"
MAP = "give `class_map`, the weights' name of each class or its number"


@dataclass(frozen=True)
class Matched:
    """Which output of a head each class of a data set is."""

    outputs: tuple[int, ...]
    """By the data's numbers."""
    names: tuple[str, ...]
    """The data's."""
    known: Mapping[int, str]
    """The weights' names by number."""

    @property
    def note(self) -> str:
        """What a person should know of the match; empty for classes with names."""
        return ALL_NUMBERS if all(name.isdecimal() for name in self.names) else ""


def join(
    data: Artifact | Estimate, weights: Artifact | Estimate, called: Mapping[str, str] | None = None
) -> Matched | None:
    """Match data to weights, committed or planned; None where one's names are not known yet. Errors as `matched`."""
    names, known = known_names(data), known_names(weights)
    if names is None or known is None:
        return None
    uri, theirs = getattr(data, "uri", "data of this run"), getattr(weights, "uri", "weights of this run")
    classes = tuple(names.values())
    if isinstance(data, ShardSet) and _once_numbered(data, classes):
        classes = imagenet_ids()
    if called:
        return mapped(uri, classes, theirs, known or _numbers(weights), called)
    if set(classes) <= set(imagenet_ids()):
        known = ids_of_words(known) or known
    return matched(uri, classes, theirs, known)


def matched(data: str, names: Sequence[str], weights: str, known: Mapping[int, str]) -> Matched:
    """Match the classes of `data` to the outputs of `weights` by name; both URIs are for messages.

    UsageError for a class that the weights do not know, or know twice.
    """
    numbers = {name: number for number, name in known.items()}
    asked, do = f"classify {data} with {weights}", f"fine-tune on these classes, use method fewshot, or {MAP}"
    if not known:
        found = f"the weights name none of their classes, the data have {len(names)}: {_said(names)}"
        raise UsageError(asked, found, do)
    if unknown := [name for name in names if name not in numbers]:
        theirs, near = [name for name in numbers if name not in set(names)], nearly(unknown, numbers)
        found = f"{len(unknown)} of {len(names)} classes are unknown to the weights, {with_words(unknown[0])!r} for one"
        found += f"; only the data have {_said(unknown)}"
        found += f", only the weights {_said(theirs)}" if theirs else ""
        raise UsageError(asked, f"{found}{f' ({near})' if near else ''}", do)
    _refuse_two_outputs(asked, names, known)
    return Matched(tuple(numbers[name] for name in names), tuple(names), known)


def mapped(
    data: str, names: Sequence[str], weights: str, known: Mapping[int, str], called: Mapping[str, str]
) -> Matched:
    """Match by `called`, the weights' name of each class of the data.

    UsageError for a class of the data that it misses, and a name in it that the data, or the weights, do not have.
    """
    asked, do = f"classify {data} with {weights} by class_map", "correct class_map"
    if missed := [name for name in names if name not in called]:
        near = nearly(missed, set(called) - set(names))
        found = f"it misses {len(missed)} of the data's {len(names)} classes: {_said(missed)}"
        raise UsageError(asked, f"{found}{f' ({near})' if near else ''}", f"{do}: each class of the data stands in it")
    if strange := [name for name in called if name not in set(names)]:
        raise UsageError(asked, f"it names {some_names(strange)}, which the data do not have", do)
    numbers = {str(number): number for number in known} | {name: number for number, name in known.items()}
    if unknown := [called[name] for name in names if called[name] not in numbers]:
        near = nearly(unknown, numbers)
        found = (
            f"it names {some_names(unknown)}, which the weights do not have; theirs are {_said(tuple(known.values()))}"
        )
        raise UsageError(asked, f"{found}{f' ({near})' if near else ''}", do)
    theirs = tuple(called[name] for name in names)
    _refuse_two_outputs(asked, theirs, known)
    outputs = tuple(numbers[name] for name in theirs)
    if len(set(outputs)) < len(outputs):
        twice = next(known[one] for one in outputs if outputs.count(one) > 1)
        raise UsageError(asked, f"it gives {twice!r} twice, by name and by number", do)
    return Matched(outputs, tuple(names), known)


def _refuse_two_outputs(asked: str, names: Sequence[str], known: Mapping[int, str]) -> None:
    numbers = {name: number for number, name in known.items()}
    if twice := [name for number, name in known.items() if numbers[name] != number and name in set(names)]:
        both = [number for number, name in known.items() if name == twice[0]]
        raise UsageError(asked, f"{twice[0]!r} is the name of the weights' classes {both}: which is meant?", MAP)


def _said(names: Sequence[str]) -> str:
    """Some names, those of ImageNet with a word beside them."""
    return some_names([with_words(name) for name in names])


def _numbers(weights: Artifact | Estimate) -> dict[int, str]:
    """Names for the outputs of a head that has none: their numbers."""
    model = getattr(weights, "model", None)
    return {number: str(number) for number in range((model.classes or 0) if model else 0)}


def _once_numbered(data: ShardSet, names: Sequence[str]) -> bool:
    """Whether it is one of ImageNet's other test sets, ingested when these were numbered."""
    if len(names) != len(imagenet_ids()) or not all(name.isdecimal() for name in names):
        return False
    source = read_record(data.uri)[0].config.get("source", {})
    return source.get("kind") == "benchmark" and source.get("name") in ONCE_NUMBERED
