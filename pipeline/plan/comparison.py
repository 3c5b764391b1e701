"""What distinguishes runs: the fields of their recipes, their data and their resources, node by node.

Pure but for records of other runs that an unfinished node names; prints nothing.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.infra.errors import UsageError, VitpipeError
from vitpipe.pipeline.plan.fingerprint import MISSING, Change, changes, field_text, fingerprints
from vitpipe.pipeline.spec.graph import is_uri
from vitpipe.pipeline.spec.text.problems import shown
from vitpipe.pipeline.store.many_runs import RunFacts
from vitpipe.pipeline.store.records import read_external

NAMED = 12
"""Fields that a message names at most."""
_DATA = ("data",)
"""Stands beside the fields of a recipe for the data that it made."""


@dataclass(frozen=True)
class Side:
    """One node of one run: its recipe, as it was committed or else as the spec wants it."""

    recipe: Mapping[str, Any]
    fingerprint: str
    config: Mapping[str, Any]
    """With defaults."""
    resources: Mapping[str, Any]
    manifest_sha256: str
    """Identity of the data that it made; empty where it made none, or nothing yet."""
    elsewhere: frozenset[str]
    """Inputs that come from other runs: what is behind them no other node of this run can show."""


@dataclass(frozen=True)
class Distinction:
    """A field, and its value in each of the runs; `MISSING` where a run has no such field or node."""

    node: str
    path: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """`backbone.config.optimizer.peak_lr`: as overrides on the command line write it, behind `nodes.`."""
        return ".".join((self.node, *self.path))

    def means(self, word: str) -> bool:
        """Whether a person means this field by `word`: its name, or the end of it from a dot on."""
        return f".{self.name}".endswith(f".{word}")

    def text(self, place: int) -> str:
        """Write the value in one of the runs."""
        return field_text(self.values[place], self.path)


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other."""

    runs: tuple[RunFacts, ...]
    fields: tuple[Distinction, ...]
    """Where not all are equal."""
    only: Mapping[str, tuple[int, ...]]
    """Nodes that some of the runs lack: which have them, by their places."""
    equal: tuple[str, ...]
    """Nodes whose recipes, data and resources are the same in all."""
    all_fields: tuple[Distinction, ...]
    """Every field of every config, defaults too, for whoever asks by name."""

    def chosen(self, words: Sequence[str]) -> tuple[Distinction, ...]:
        """Find the fields that these words mean, those that differ before others. UsageError with the near names."""
        found: dict[str, Distinction] = {}
        for word in words:
            meant = [one for one in self.fields if one.means(word)] or [
                one for one in self.all_fields if one.means(word)
            ]
            if not meant:
                raise _no_field(word, self)
            found |= {one.name: one for one in meant}
        return tuple(found.values())


def compare(runs: Sequence[RunFacts], inputs: bool = False) -> Comparison:
    """Compare runs; nodes of equal fingerprint, data and resources count as equal at once.

    With `inputs` also those inputs are told apart whose cause is another node of the same run, as drift prints them.
    """
    sides = [_sides(run) for run in runs]
    nodes = list(dict.fromkeys(id for side in sides for id in side))
    fields: list[Distinction] = []
    equal = []
    for id in nodes:
        here = [side.get(id) for side in sides]
        told = _distinctions(id, here, inputs)
        fields += told
        if not told and None not in here:
            equal.append(id)
    only = {id: tuple(place for place, side in enumerate(sides) if id in side) for id in nodes}
    only = {id: places for id, places in only.items() if len(places) < len(runs)}
    known = tuple(one for id in nodes for one in _every_field(id, [side.get(id) for side in sides]))
    return Comparison(tuple(runs), tuple(fields), only, tuple(equal), known)


def _distinctions(id: str, sides: Sequence[Side | None], inputs: bool) -> list[Distinction]:
    first = next(side for side in sides if side)
    rows: dict[tuple[str, ...], list[Any]] = {}
    for place, side in enumerate(sides):
        for change in _changes(first, side, inputs) if side else ():
            blank = [MISSING if one is None else change.old for one in sides]
            rows.setdefault(change.path, blank)[place] = change.new
    if _DATA in rows:  # a node of another recipe made data of its own
        rows[_DATA] = [side.manifest_sha256[:12] or MISSING if side else MISSING for side in sides]
    return [Distinction(id, path, tuple(values)) for path, values in rows.items()]


def _changes(one: Side, other: Side, inputs: bool) -> Iterator[Change]:
    if one.fingerprint != other.fingerprint:
        elsewhere = one.elsewhere | other.elsewhere
        for change in changes(one.recipe, other.recipe):
            if inputs or change.path[0] != "inputs" or change.path[1] in elsewhere:
                yield change
    elif one.manifest_sha256 and other.manifest_sha256 and one.manifest_sha256 != other.manifest_sha256:
        yield Change(_DATA, one.manifest_sha256[:12], other.manifest_sha256[:12])
    for name in sorted(one.resources.keys() & other.resources.keys()):
        if one.resources[name] != other.resources[name]:
            yield Change(("resources", name), one.resources[name], other.resources[name])


def _sides(run: RunFacts) -> dict[str, Side]:
    """Describe each node of the accepted spec."""
    assert run.graph
    wanted = fingerprints(run.graph, _externals(run)) if set(run.records) != set(run.graph.nodes) else {}
    found = {}
    for id, node in run.graph.nodes.items():
        if committed := run.records.get(id):
            record = committed.record
            elsewhere = [
                name
                for name, refs in record.inputs.items()
                if any(not one.uri.startswith(f"{run.uri}/") for one in refs)
            ]
            found[id] = Side(
                record.recipe,
                record.fingerprint,
                record.config,
                record.resources,
                str(record.output.get("manifest_sha256", "")),
                frozenset(elsewhere),
            )
        else:
            elsewhere = [name for name, refs in node.needs.items() if any(map(is_uri, refs))]
            found[id] = Side(
                wanted[id].recipe,
                wanted[id].sha256,
                node.config.model_dump(mode="json", by_alias=True),
                node.resources.model_dump(mode="json"),
                "",
                frozenset(elsewhere),
            )
    return found


def _externals(run: RunFacts) -> dict[str, str]:
    found = {}
    for uri in run.graph.uris() if run.graph else ():
        try:
            found[uri] = read_external(uri).record.fingerprint
        except VitpipeError:
            found[uri] = "unknown"
    return found


def _every_field(id: str, sides: Sequence[Side | None]) -> Iterator[Distinction]:
    told = [dict(_leaves(("config",), side.config)) if side else {} for side in sides]
    for path in dict.fromkeys(path for one in told for path in one):
        yield Distinction(id, path, tuple(one.get(path, MISSING) for one in told))


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    else:
        yield path, value


def _no_field(word: str, compared: Comparison) -> UsageError:
    names = [one.name for one in (*compared.fields, *compared.all_fields)]
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    near = difflib.get_close_matches(word, [*ends, *dict.fromkeys(names)], n=3, cutoff=0.5)
    nearest = f"; near is {_listed(near)}" if near else ""
    differ = [one.name for one in compared.fields]
    there = f"the runs differ in {_listed(differ)}" if differ else "the runs differ in no field"
    do = "name a field, or the end of its name"
    return UsageError(f"compare by {shown(word)}", f"no node has such a field{nearest}; {there}", do)


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (", ..." if len(listed) > NAMED else "")
