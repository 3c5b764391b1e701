"""One field of a spec, or of the machines, at several values: what the node that it is of would cost at each.

The store is asked once, for the spec as it stands; every value is planned by what it said then.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vitpipe.infra.errors import UsageError, VitpipeError
from vitpipe.pipeline.plan.costed import costed
from vitpipe.pipeline.plan.fingerprint import fingerprints
from vitpipe.pipeline.plan.planned import Planned, StoreFacts
from vitpipe.pipeline.plan.prices import Machine
from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.spec.text.problems import SpecError
from vitpipe.pipeline.store.records import Committed
from vitpipe.stages.costs.machines import ClusterFacts

MOST_VALUES = 200
FORM = "write numbers, such as --sweep workers=8,16,32"
Load = Callable[[Sequence[str]], PipelineSpec]
"""Reads the spec with more overrides."""
OfMachine = Callable[[PipelineSpec, ClusterFacts], Machine]


@dataclass(frozen=True)
class Swept:
    """What is swept, as asked."""

    asked: str
    """`workers`"""
    path: str
    """`nodes.backbone.resources.workers`, or a field of the machines."""
    node: str | None
    """Whose field it is, by its name in the YAML; None of machines and vars."""
    values: tuple[str, ...]

    @property
    def is_of_machines(self) -> bool:
        """Whether it is no field of the spec."""
        return "." not in self.path


@dataclass(frozen=True)
class SweptPoint:
    """What one value comes to."""

    value: float
    planned: Planned | None = None
    problem: str = ""
    """Why this value cannot be."""
    also: str = ""
    """What had to change with it."""

    def to_json(self) -> dict[str, object]:
        """One point of `plan --sweep --json`."""
        if self.planned is None:
            return {"value": self.value, "problem": self.problem}
        cost = self.planned.estimate
        costs = cost.costs
        return {
            "value": self.value,
            "node": self.planned.node,
            "hours": cost.hours,
            "images_per_s": costs.images_per_s if costs else None,
            "binds": costs.binds if costs else "none",
            "memory_bytes": cost.memory_bytes,
            "gpu_hours": self.planned.gpu_hours,
            "price": self.planned.price,
            "energy_kwh": self.planned.energy_kwh,
            "also": self.also,
        }


def parsed(text: str, graph: Graph) -> Swept:
    """Read `a.b=x,y,...,z`. UsageError for values that are no numbers, and for a name that no node has, or several."""
    name, equals, listed = text.partition("=")
    if not equals or not name or not listed:
        raise UsageError(f"sweep {text!r}", "a field and its values are needed", FORM)
    node, path = _path(name, graph)
    return Swept(name, path, node, tuple(f"{value:g}" for value in _values(name, listed)))


def swept_points(
    swept: Swept, facts: StoreFacts, load: Load, machine: OfMachine, cluster: ClusterFacts
) -> list[SweptPoint]:
    """Plan each value. UsageError where none of them can be planned."""
    points = [_point(swept, value, facts, load, machine, cluster) for value in swept.values]
    if all(point.planned is None for point in points):
        found = points[0].problem
        raise UsageError(f"sweep {swept.asked}", f"none of its values can be planned: {found}", "mend the first")
    return points


def _point(
    swept: Swept, value: str, facts: StoreFacts, load: Load, machine: OfMachine, cluster: ClusterFacts
) -> SweptPoint:
    try:
        also = ""
        if swept.is_of_machines:
            try:
                cluster = ClusterFacts.model_validate({**cluster.model_dump(), swept.path: float(value)})
            except ValueError:
                return SweptPoint(float(value), problem=f"{swept.path} cannot be {value}")
            spec = load(())
        else:
            spec, also = _loaded(swept, value, load)
        externals = {uri: _fingerprint(found) for uri, found in facts.external.items()}
        plan = costed(spec, replace(facts, wanted=fingerprints(spec.graph, externals)), machine(spec, cluster))
    except (SpecError, UsageError) as error:
        return SweptPoint(float(value), problem=error.found)
    known = [one for id, one in plan.nodes.items() if swept.node in (None, spec.graph.nodes[id].name)]
    timed = [one for one in known if one.estimate.hours is not None]
    if not timed:
        why = next((one.reason for one in known if one.problem), "its data are not known yet")
        return SweptPoint(float(value), problem=f"{known[0].node} cannot be reckoned: {why}")
    trained = [one for one in timed if one.stage == "pretrain"]
    longest = max(trained or timed, key=lambda one: one.estimate.hours or 0.0)
    return SweptPoint(float(value), longest, also=also)


def _fingerprint(found: Committed | VitpipeError) -> str:
    return "unknown" if isinstance(found, VitpipeError) else found.record.fingerprint


def _loaded(swept: Swept, value: str, load: Load) -> tuple[PipelineSpec, str]:
    """Read the spec with the value; more workers than micro-batches get smaller micro-batches."""
    try:
        return load((f"{swept.path}={value}",)), ""
    except SpecError:
        if not swept.path.endswith(".resources.workers") or not value.isdigit():
            raise
        before = load(()).graph
        node = before.nodes[before.named(str(swept.node))[0]]
        batch, workers = int(getattr(node.config, "batch_images", 0)), int(value)
        if not 0 < workers <= batch or batch % workers:
            raise
        smaller = f"nodes.{swept.node}.resources.micro_batch={batch // workers}"
        return load((f"{swept.path}={value}", smaller)), f"micro_batch {batch // workers}"


def _path(name: str, graph: Graph) -> tuple[str | None, str]:
    """Find the field that a name means: written in full, or the end of it where one node alone has such a field."""
    if name.startswith(("nodes.", "vars.")):
        node = name.split(".")[1] if name.startswith("nodes.") else None
        if node is not None and not graph.named(node):
            raise _unknown(name, node, {one.name for one in graph.nodes.values()}, "no node of that name")
        return node, name
    if name in ClusterFacts.model_fields:
        return None, name
    fields: dict[str, str] = {}
    for one in graph.nodes.values():
        for part in ("resources", "config"):
            settings = getattr(one, part)
            for field in type(settings).model_fields:
                fields.setdefault(f"nodes.{one.name}.{part}.{field}", one.name)
    meant = [path for path in fields if f".{path}".endswith(f".{name}") or _shortened(path) == name]
    trained = [path for path in meant if graph.nodes[graph.named(fields[path])[0]].stage.name == "pretrain"]
    chosen = trained or meant
    if not chosen:
        ends = {path.rsplit(".", 1)[1] for path in fields} | set(ClusterFacts.model_fields)
        raise _unknown(name, name.rsplit(".", 1)[-1], ends, "no node, and no machine, has such a field")
    if len(chosen) > 1:
        raise UsageError(f"sweep {name}", f"it is a field of several nodes: {', '.join(chosen)}", "write one of these")
    return fields[chosen[0]], chosen[0]


def _shortened(path: str) -> str:
    _, node, _, field = path.split(".", 3)
    return f"{node}.{field}"


def _unknown(name: str, word: str, known: set[str], found: str) -> UsageError:
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.0)
    return UsageError(f"sweep {name}", found, f"did you mean {near[0]!r}?")


def _values(name: str, listed: str) -> list[float]:
    """The numbers, `...` filled in by the ratio of the two before it."""
    words, found = [word.strip() for word in listed.split(",")], list[float]()
    for place, word in enumerate(words):
        if word == "...":
            if len(found) < 2 or place + 1 >= len(words):
                raise UsageError(f"sweep {name}", "`...` stands between two values and a last one", FORM)
            found += _between(name, found[-2], found[-1], _number(name, words[place + 1]))
        else:
            found.append(_number(name, word))
    if len(found) > MOST_VALUES:
        raise UsageError(f"sweep {name}", f"{len(found)} values, at most {MOST_VALUES}", "name fewer")
    return list(dict.fromkeys(found))


def _between(name: str, first: float, second: float, last: float) -> list[float]:
    ratio = second / first if first else 0.0
    if ratio <= 1 or last < second:
        raise UsageError(f"sweep {name}", f"`...` cannot lead from {first:g}, {second:g} to {last:g}", FORM)
    count = math.floor(math.log(last / second, ratio) + 1e-9)
    return [second * ratio**step for step in range(1, min(count, MOST_VALUES) + 1) if second * ratio**step < last]


def _number(name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"sweep {name}", f"{word!r} is no number", FORM)
    return value
