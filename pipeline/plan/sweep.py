"""One field of a spec, or of the machines, at several values: what the node that it is of would cost at each.

The store is asked once, for the spec as it stands; every value is planned by what it said then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from vitpipe.infra.errors import UsageError, VitpipeError
from vitpipe.pipeline.plan.costed import costed
from vitpipe.pipeline.plan.fingerprint import fingerprints
from vitpipe.pipeline.plan.planned import Planned, StoreFacts
from vitpipe.pipeline.plan.prices import Machine
from vitpipe.pipeline.plan.sweep_fields import field_meant
from vitpipe.pipeline.plan.sweep_values import read, written
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.spec.text.problems import Problem, SpecError
from vitpipe.pipeline.store.records import Committed
from vitpipe.stages.costs.machines import ClusterFacts

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
    """As YAML reads them, without their unit."""
    unit: str = ""
    """`steps`, of lengths of training."""

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
    num_gpus: int = 0
    """Of the machines that it is planned for."""

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


def parsed(text: str, spec: PipelineSpec) -> Swept:
    """Read `a.b=x,y,...,z`. UsageError as for `sweep_values.read` and `sweep_fields.field_meant`."""
    asked = read(text)
    node, path = field_meant(asked.name, spec, asked.unit)
    return Swept(asked.name, path, node, tuple(map(written, asked.values)), asked.unit)


def swept_points(
    swept: Swept, facts: StoreFacts, load: Load, machine: OfMachine, cluster: ClusterFacts
) -> list[SweptPoint]:
    """Plan each value. UsageError where none of them can be planned."""
    points: list[SweptPoint] = []
    for value in swept.values:
        before = next((point.planned.node for point in points if point.planned), None)
        points.append(_point(swept, value, before, facts, load, machine, cluster))
    if all(point.planned is None for point in points):
        found = f"none of its values can be planned: {swept.values[0]}: {points[0].problem}"
        raise UsageError(f"sweep {swept.asked}", found, "mend the first")
    return points


def _point(
    swept: Swept,
    value: str,
    before: str | None,
    facts: StoreFacts,
    load: Load,
    machine: OfMachine,
    cluster: ClusterFacts,
) -> SweptPoint:
    """Plan one value; of several nodes told is the longest, and that of the value `before` at those after it."""
    try:
        also = ""
        if swept.is_of_machines:
            try:
                cluster = ClusterFacts.model_validate(
                    {**cluster.model_dump(exclude_unset=True), swept.path: float(value)}
                )
            except ValidationError as error:
                return SweptPoint(float(value), problem=_out_of_bounds(error, value))
            spec = load(())
        else:
            spec, also = _loaded(swept, value, load)
        externals = {uri: _fingerprint(found) for uri, found in facts.external.items()}
        on = machine(spec, cluster)
        plan = costed(spec, replace(facts, wanted=fingerprints(spec.graph, externals)), on)
    except SpecError as error:
        return SweptPoint(float(value), problem="; ".join(_told(one, swept) for one in error.problems))
    except UsageError as error:
        return SweptPoint(float(value), problem=error.found)
    known = [one for id, one in plan.nodes.items() if swept.node in (None, spec.graph.nodes[id].name)]
    timed = [one for one in known if one.estimate.hours is not None]
    if not timed:
        why = next((one.reason for one in known if one.problem), "its data are not known yet")
        return SweptPoint(float(value), problem=f"{known[0].node} cannot be reckoned: {why}")
    same = [one for one in timed if one.node == before]
    trained = [one for one in timed if one.stage == "pretrain"]
    longest = max(same or trained or timed, key=lambda one: one.estimate.hours or 0.0)
    return SweptPoint(float(value), longest, also=also, num_gpus=on.num_gpus)


def _out_of_bounds(error: ValidationError, value: str) -> str:
    """Say of a field of the machines why it has no such value."""
    words = error.errors(include_url=False)[0]["msg"].replace("Input should be", "should be")
    return f"{words}, not {value}"


def _told(problem: Problem, swept: Swept) -> str:
    """Say what is wrong with a value; where, unless it is where the sweep is."""
    words = problem.text.replace(", or a list", "")  # numbers are swept, no lists
    return words if problem.path in (swept.path, f"nodes.{swept.node}", "") else f"{problem.path}: {words}"


def _fingerprint(found: Committed | VitpipeError) -> str:
    return "unknown" if isinstance(found, VitpipeError) else found.record.fingerprint


def _loaded(swept: Swept, value: str, load: Load) -> tuple[PipelineSpec, str]:
    """Read the spec with the value; more workers than micro-batches get smaller micro-batches."""
    written_out = f"{value} {swept.unit}".strip()
    try:
        return load((f"{swept.path}={written_out}",)), ""
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
