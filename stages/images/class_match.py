"""Which output of a head each class of a data set is: the one that has its name. No torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, ShardSet
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.images.classes import nearly, some_names
from vitpipe.stages.images.manifest import known_names
from vitpipe.stages.record import read_record

WORDNET_ORDER = ("imagenet-real", "imagenet-v2")
"""Benchmarks whose files number ImageNet's classes, in the order of their WordNet ids, by which ImageNet's own files
(and folders like them) name them: the README of github.com/google-research/reassessed-imagenet, and ImageNet-V2's."""
_WORDNET_ID = re.compile(r"n[0-9]{8}")
ALL_NUMBERS = "classes are matched by number, as neither side names them: that both count the same classes is assumed"


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


def join(data: Artifact | Estimate, weights: Artifact | Estimate) -> Matched | None:
    """Match data to weights, committed or planned; None where one's names are not known yet. Errors as `matched`."""
    names, known = known_names(data), known_names(weights)
    if names is None or known is None:
        return None
    uri, theirs = getattr(data, "uri", "data of this run"), getattr(weights, "uri", "weights of this run")
    classes = tuple(names.values())
    if isinstance(data, ShardSet) and _in_wordnet_order(data, classes, known):
        classes = tuple(sorted(known.values()))
    return matched(uri, classes, theirs, known)


def matched(data: str, names: Sequence[str], weights: str, known: Mapping[int, str]) -> Matched:
    """Match the classes of `data` to the outputs of `weights` by name; both URIs are for messages.

    UsageError for a class that the weights do not know, or know twice.
    """
    numbers = {name: number for number, name in known.items()}
    asked, do = f"classify {data} with {weights}", "fine-tune on these classes, or use method fewshot"
    if not known:
        found = f"the weights name none of their classes, the data have {len(names)}: {some_names(names)}"
        raise UsageError(asked, found, do)
    if unknown := [name for name in names if name not in numbers]:
        theirs, near = [name for name in numbers if name not in set(names)], nearly(unknown, numbers)
        found = f"{len(unknown)} of {len(names)} classes are unknown to the weights, {unknown[0]!r} for one"
        found += f"; only the data have {some_names(unknown)}"
        found += f", only the weights {some_names(theirs)}" if theirs else ""
        raise UsageError(asked, f"{found}{f' ({near})' if near else ''}", do)
    if twice := [name for number, name in known.items() if numbers[name] != number and name in set(names)]:
        both = [number for number, name in known.items() if name == twice[0]]
        raise UsageError(asked, f"{twice[0]!r} is the name of the weights' classes {both}: which is meant?", do)
    return Matched(tuple(numbers[name] for name in names), tuple(names), known)


def _in_wordnet_order(data: ShardSet, names: Sequence[str], known: Mapping[int, str]) -> bool:
    """Whether the data's numbers are places among the weights' WordNet ids: official files that say so alone."""
    ids = len(known) == len(names) and all(_WORDNET_ID.fullmatch(name) for name in known.values())
    if not ids or not all(name.isdecimal() for name in names):
        return False
    source = read_record(data.uri)[0].config.get("source", {})
    return source.get("kind") == "benchmark" and source.get("name") in WORDNET_ORDER
