"""The vocabulary of a plan: what the store says of each node, and what was decided. Plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vitpipe.infra.errors import IntegrityError, VitpipeError
from vitpipe.pipeline.plan.fingerprint import Fingerprint
from vitpipe.pipeline.spec.graph import Node, is_uri
from vitpipe.pipeline.store.attempts import Attempt, Refs
from vitpipe.pipeline.store.records import Committed
from vitpipe.stages.costs.tasks import WorkPhase
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.sighting import Sighted

Action = Literal["run", "resume", "reuse", "drifted", "blocked"]


@dataclass(frozen=True)
class Result:
    """A result of another run that is what a node's recipe asks for, whole, and of the source as it is now."""

    committed: Committed
    given: Mapping[str, tuple[Committed | None, ...]] = field(default_factory=dict)
    """The records that it was made of, by input; None for one that is gone."""
    sighted: Sighted | None = None


@dataclass(frozen=True)
class Equals:
    """What was found for one node in other runs."""

    results: tuple[Result, ...] = ()
    unfit: str = ""
    """Why the first that is of the same recipe cannot be adopted; empty where all can, or there is none."""


@dataclass(frozen=True)
class StoreFacts:
    """What the store says about a graph's nodes."""

    wanted: Mapping[str, Fingerprint]
    """By node: what the recipe asks for."""
    records: Mapping[str, Committed] = field(default_factory=dict)
    """By node, where one is committed."""
    attempts: Mapping[str, Sequence[Attempt]] = field(default_factory=dict)
    """By node, newest first; those of nodes that can simply be reused may be left out."""
    external: Mapping[str, Committed | VitpipeError] = field(default_factory=dict)
    """By URI: another run's artifact, or why it cannot be used."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """By node: which files that its record names are missing, or of another size."""
    sighted: Mapping[str, Sighted] = field(default_factory=dict)
    """By node: what its source has now, where the node takes from one and its record has the wanted fingerprint."""
    damaged: Mapping[str, IntegrityError] = field(default_factory=dict)
    """By node: which of the files that say what was taken from the source are not what was committed."""
    run: str = ""
    """URI of the run's folder."""
    equals: Mapping[str, Equals] = field(default_factory=dict)
    """By node without a record: what other runs of the store have of it."""

    def given(self, ref: str) -> Committed:
        """Return the artifact that a need names. KeyError while it is not committed, or cannot be used."""
        found = self.external[ref] if is_uri(ref) else self.records[ref]
        if isinstance(found, VitpipeError):
            raise KeyError(ref)
        return found

    def inputs(self, node: Node) -> Refs:
        """Return every input of the node as it is now. KeyError as `given`."""
        return {name: tuple(self.given(ref).ref for ref in refs) for name, refs in node.needs.items()}


@dataclass(frozen=True)
class Planned:
    """The decision on one node."""

    node: str
    stage: str
    action: Action
    reason: str
    adopts: Committed | None = None
    """The result of another run that is taken over; there is no record of this run yet."""
    differences: tuple[str, ...] = ()
    """What drifted, or what is replaced: `config.optimizer.peak_lr 0.001 -> 0.003`."""
    replaces: bool = False
    """Whether another result of the node may be replaced."""
    source: Sighted | None = None
    """What its source has now; if that changed, the record is of other data even where its fingerprint is right."""
    problem: VitpipeError | None = None
    """Why the node cannot even begin: a missing root, or artifact of another run."""
    estimate: Estimate = field(default_factory=Estimate)
    phases: tuple[WorkPhase, ...] = ()
    """What it has the queue do, where its estimate says only hours."""
    gpu_hours: float | None = None
    """Hours for which the node holds GPUs of the kind that the plan is for; None where it computes on CPU cores."""
    compute_gpu_hours: float | None = None
    """As many as the model's FLOPs alone would take."""
    price: float | None = None
    """Price of those hours, in the currency that the price of one was given in."""
    energy_kwh: float | None = None
    """Of GPUs and cores, at their limits."""
    paper: str = ""
    """How many fields deviate from which of the paper's recipes; empty where it has none."""
    deviations: tuple[str, ...] = ()
    """Each of them with both values and its table or section."""

    @property
    def of_other_data(self) -> bool:
        """Whether what is committed was made of other data than the source has now, whatever its fingerprint says."""
        return bool(self.source and self.source.changes)

    @property
    def work_phases(self) -> tuple[WorkPhase, ...]:
        """What it has the queue do, one after the other; nothing of one that is committed, or of unknown length."""
        if self.action == "reuse":
            return ()
        return self.estimate.costs.phases if self.estimate.costs else self.phases

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of a node before it begins, beside what it costs."""
        return self.estimate.notes if self.action in ("run", "resume") else ()

    def to_json(self) -> dict[str, Any]:
        """One node of `plan --json`; `classes` is their number, and their names are known of what is to be ingested."""
        names = (
            {"class_names": list(self.estimate.class_names)}
            if self.stage == "ingest" and self.estimate.class_names
            else {}
        )
        return {
            "node": self.node,
            "stage": self.stage,
            "action": self.action,
            "reason": self.reason,
            **({"adopts": self.adopts.uri} if self.adopts else {}),
            "differences": list(self.differences),
            "source": "; ".join(filter(None, (*self.source.changes, self.source.note))) if self.source else "",
            "classes": self.estimate.num_classes,
            **names,
            "splits": self.estimate.splits,
            "estimate": self.estimate.model_dump(mode="json", exclude_none=True),
            "gpu_hours": self.gpu_hours,
            "compute_gpu_hours": self.compute_gpu_hours,
            "price": self.price,
            "energy_kwh": self.energy_kwh,
            "binds": self.estimate.costs.binds if self.estimate.costs else "none",
            "paper": self.paper,
            "deviations": list(self.deviations),
        }


def spared(found: Committed) -> Estimate:
    """Say what is known of a result that is there; it costs nothing any more."""
    kept, result = found.record.estimate, found.record.output
    facts = {name: kept[name] for name in ("num_classes", "model", "averaged") if name in kept}
    return Estimate.model_validate(
        {**facts, **{name: result[name] for name in ("num_classes", "splits") if name in result}}
    )


@dataclass(frozen=True)
class Plan:
    """All decisions, in the graph's order."""

    nodes: Mapping[str, Planned]

    def having(self, *actions: Action) -> tuple[Planned, ...]:
        """The nodes with one of these actions."""
        return tuple(planned for planned in self.nodes.values() if planned.action in actions)

    @property
    def due(self) -> tuple[Planned, ...]:
        """What there is to do: to run, or to adopt from another run."""
        return tuple(one for one in self.nodes.values() if one.action in ("run", "resume") or one.adopts)

    def to_json(self) -> dict[str, Any]:
        """What `plan --json` prints."""
        return {"nodes": [planned.to_json() for planned in self.nodes.values()]}
