"""Every node of a cluster looked at, and every pair of them: what they say and how they see each other's writes.

Asks through `Nodes`, which gives each question a bound: a node that hangs is left out from then on, and named. Judges
nothing.
"""

import math
import secrets
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vitpipe.infra.ray.node_facts import NodeFacts
from vitpipe.infra.ray.node_probe import SEEN_S

ANSWER_S = 60.0
"""Bound of one question. The first starts a process, which imports this program."""
PAIR_S = 3 * SEEN_S
"""A node may look for SEEN_S by itself; one that hangs in its file system does not come back."""
CLOCKS = 5
"""Questions for the time; the quickest answer says most."""
ROUNDS = 4
"""Neighbours that each node's network is measured with."""
BYTES = {False: 8 << 20, True: 256 << 20}
"""What is summed, without and with GPUs."""


class Nodes(Protocol):
    """Nodes by their names, to be asked."""

    def names(self) -> Sequence[str]:
        """Name all nodes."""

    def address(self, node: str) -> str:
        """Name the address of a node."""

    def ask(self, question: str, arguments: Mapping[str, tuple[Any, ...]], seconds: float) -> dict[str, Any]:
        """Ask these nodes the same at the same time; their answers, an exception where one raised.

        A node that gives none within `seconds` is missing.
        """


@dataclass(frozen=True)
class PairView:
    """How one node sees what another one does in the store."""

    writer: str
    reader: str
    seen_s: float | None
    """Seconds until a new name was seen, None for not at all."""
    changed_s: float | None
    """Seconds until its new content was seen."""
    refused: bool
    """Whether creating the same name again was refused."""
    locked_out: bool | None
    """Whether a lock of the writer held against the reader; None where the writer had none."""


@dataclass
class Survey:
    """All that was found."""

    names: list[str]
    facts: dict[str, NodeFacts] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    """Nodes that gave no answer, and to which question; they were not asked again."""
    errors: dict[str, str] = field(default_factory=dict)
    clocks: dict[str, float] = field(default_factory=dict)
    """Seconds by which a node's clock is ahead of this one's."""
    store: dict[str, list[str]] = field(default_factory=dict)
    """By node, the promises that the store breaks there."""
    winners: int | None = None
    """Of all nodes that created one name at once, how many were told that it was them."""
    pairs: list[PairView] = field(default_factory=list)
    all_together: float | None = None
    """Bytes a second of an all-reduce over all nodes, one rank each."""
    networks: dict[tuple[str, str], float] = field(default_factory=dict)
    """The same of two nodes alone."""


def survey(nodes: Nodes, store_uri: str) -> Survey:
    """Ask everything."""
    found = Survey(list(nodes.names()))
    asking = _Asking(nodes, found)
    found.facts = asking.all("facts", ANSWER_S)
    _clocks(asking, found)
    found.store = asking.all("store", ANSWER_S, store_uri)
    well = [name for name, broken in found.store.items() if not broken]
    if len(well) > 1:
        _pairs(asking, found, store_uri, well)
    if len(asking.left()) > 1:
        _networks(asking, found)
    return found


class _Asking:
    """Asks those that still answer, and notes those that do not."""

    def __init__(self, nodes: Nodes, found: Survey) -> None:
        self.nodes, self.found = nodes, found

    def left(self) -> list[str]:
        return [name for name in self.found.names if name not in self.found.silent]

    def each(self, question: str, seconds: float, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        asked = {name: given for name, given in arguments.items() if name not in self.found.silent}
        answers = self.nodes.ask(question, asked, seconds)
        for name in asked:
            if name not in answers:
                self.found.silent[name] = f"no answer to `{question}` in {seconds:g} s"
            elif isinstance(answers[name], Exception):
                self.found.errors.setdefault(name, f"{question}: {answers.pop(name)}")
        return answers

    def all(self, question: str, seconds: float, *arguments: Any) -> dict[str, Any]:
        return self.each(question, seconds, {name: arguments for name in self.left()})


def _clocks(asking: _Asking, found: Survey) -> None:
    for name in asking.left():
        best = math.inf
        for _ in range(CLOCKS):
            before, begun = time.time(), time.monotonic()
            answer = asking.each("clock", ANSWER_S, {name: ()})
            took = time.monotonic() - begun
            if name not in answer:
                break
            if took < best:
                best, found.clocks[name] = took, answer[name] - (before + took / 2)


def _pairs(asking: _Asking, found: Survey, uri: str, well: Sequence[str]) -> None:
    """Let each node in turn write, lock and write again, and all others look at the same time."""
    mark = f"doctor-{secrets.token_hex(4)}/node/a0/step-0"
    race = asking.each("create", PAIR_S, {name: (uri, f"{mark}/race", name) for name in well})
    found.winners = sum(map(bool, race.values()))
    made = [f"{mark}/race"]
    for number, writer in enumerate(well):
        path, lock = f"{mark}/from-{number}", f"{mark}/.lock-{number}"
        readers = [name for name in well if name != writer and name not in found.silent]
        if writer in found.silent:
            continue
        made += [path, lock]
        asking.each("absent", PAIR_S, {name: (uri, path) for name in readers})
        asking.each("create", PAIR_S, {writer: (uri, path, "one")})
        seen = asking.each("sees", PAIR_S, {name: (uri, path, "one") for name in readers})
        again = asking.each("create", PAIR_S, {name: (uri, path, "another") for name in readers})
        asking.each("write", PAIR_S, {writer: (uri, path, "two, which is longer")})
        changed = asking.each("sees", PAIR_S, {name: (uri, path, "two, which is longer") for name in readers})
        held = asking.each("hold", PAIR_S, {writer: (uri, lock)}).get(writer, False)
        out = asking.each("kept_out", PAIR_S, {name: (uri, lock) for name in readers}) if held else {}
        asking.each("release", PAIR_S, {writer: ()})
        for name in readers:
            if name not in found.silent:
                refused = again.get(name) is False
                pair = PairView(writer, name, seen.get(name), changed.get(name), refused, out.get(name))
                found.pairs.append(pair)
    if left := [name for name in well if name not in found.silent]:
        asking.each("clean", PAIR_S, {left[0]: (uri, made)})


def _networks(asking: _Asking, found: Survey) -> None:
    """Sum over all nodes, then over neighbours two by two, each node with up to ROUNDS others."""
    gpus = all(found.facts[name].gpus for name in asking.left() if name in found.facts)
    ring = [name for name in asking.left() if name in found.facts]
    together = _reduced(asking, [ring], gpus, "all")
    found.all_together = statistics.median(together.values()) if len(together) == len(ring) else None
    for number, pairs in enumerate(rounds(ring, ROUNDS)):
        both = [pair for pair in pairs if not {*pair} & {*found.silent}]
        speeds = _reduced(asking, both, gpus, f"round-{number}")
        found.networks |= {pair: min(speeds[name] for name in pair) for pair in both if {*pair} <= {*speeds}}


def rounds(names: Sequence[str], count: int) -> Iterator[list[tuple[str, str]]]:
    """PairView everybody up `count` times, never the same two again, as a tournament does."""
    ring: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    half = len(ring) // 2
    for _ in range(min(count, len(ring) - 1)):
        yield [(one, other) for one, other in zip(ring[:half], reversed(ring[half:]), strict=True) if one and other]
        ring = [ring[0], ring[-1], *ring[1:-1]]


def _reduced(asking: _Asking, groups: Sequence[Sequence[str]], gpus: bool, name: str) -> dict[str, float]:
    """All-reduce in several groups at once; by node, its bytes a second."""
    firsts = {group[0]: (asking.nodes.address(group[0]),) for group in groups}
    ports = asking.each("listen", ANSWER_S, firsts)
    arguments = {
        node: (
            asking.nodes.address(node),
            rank,
            len(group),
            (asking.nodes.address(group[0]), ports[group[0]]),
            name,
            BYTES[gpus],
            PAIR_S,
        )
        for group in groups
        for rank, node in enumerate(group)
        if group[0] in ports
    }
    return asking.each("all_reduce", PAIR_S + ANSWER_S, arguments)
