"""Run a spec: plan it, take the run, walk the plan, give the run up. Imports nothing heavy unless something runs."""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.infra.events import StoreEvents
from vitpipe.infra.lease_state import read_lease
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.spare import SpareRoom, spare_room
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.driver import Driver, Ways
from vitpipe.pipeline.drive.exporting import exporting
from vitpipe.pipeline.drive.lease import Lease, hold
from vitpipe.pipeline.drive.signals import NoSignals, Signals
from vitpipe.pipeline.drive.walk import Asked, Inbox, Walk
from vitpipe.pipeline.plan.decide import make_plan, refusal
from vitpipe.pipeline.plan.planned import Facts, Plan
from vitpipe.pipeline.plan.survey import survey
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.store.accepted_spec import SPEC, is_kept
from vitpipe.pipeline.store.records import Committed
from vitpipe.stages.sighting import Sighted

WAYS = Ways()
RANKS_PER_CORE = 4
"""Of an embedded Ray, at most: CPUs it lends to tasks and ranks, where it has fewer than they ask for."""


@dataclass(frozen=True)
class Outcome:
    """A run that is complete: every node of the graph has its record."""

    plan: Plan
    """What there was to do when it began; `plan.due` is empty when nothing ran."""
    committed: Mapping[str, Committed]


def run(spec: PipelineSpec, replacing: Sequence[str] = (), ways: Ways = WAYS) -> Outcome:
    """Run or resume every node that is not committed yet.

    `replacing` names nodes whose drifted results may give way, with all that depends on them. Errors: DriftError and
    UsageError before anything is written; LeaseLost when another driver is alive; the gravest error of the nodes that
    failed; Stopped after SIGTERM, SIGINT or `stop`.
    """
    run = open_store(spec.uri)
    facts, plan = _accepted(run, spec, replacing, ways)
    for planned in plan.nodes.values():
        if planned.source and planned.source.is_loud:
            ways.on_note(f"{planned.node}: {planned.source.note}")
    for name in replacing:
        if all(plan.nodes[id].action == "reuse" for id in spec.graph.named(name)):
            ways.on_note(f"{name}: nothing to replace, what is committed is what is asked for")
    if not plan.due and is_kept(run, spec.text):
        return Outcome(plan, facts.records)
    ways.probe()
    inbox: Inbox = Inbox()
    main = threading.current_thread() is threading.main_thread()
    with (
        Signals() if main else NoSignals() as signals,
        hold(run, inbox.put, ways.timing, ways.clock) as lease,
        spare_room(run) as spare,  # given back before the lease is
    ):
        ways.on_lease(lease.fence)
        facts, plan = _accepted(run, spec, replacing, ways, facts.sighted)  # another may have gone on until just now
        if plan.due or not is_kept(run, spec.text):
            lease.check()
            run.write(SPEC, spec.text.encode())
        if not plan.due:
            return Outcome(plan, facts.records)
        return _walk(spec, Held(run, lease, spare), facts, plan, inbox, signals, ways)


@dataclass(frozen=True)
class Held:
    """A run that is ours."""

    run: Store
    lease: Lease
    spare: SpareRoom


def _walk(
    spec: PipelineSpec, held: Held, facts: Facts, plan: Plan, inbox: Inbox, signals: Signals, ways: Ways
) -> Outcome:
    with ways.connect(spec.name, _cpus_wanted(spec, plan)) as clusters, exporting(spec.name, held.run, plan, ways):
        signals.install()  # ray.init sets its own
        signals.tell(lambda name: inbox.put(Asked(name)))
        if clusters.dashboard_url:
            ways.on_cluster(clusters.dashboard_url)
        driver = Driver(spec.name, held.run, held.lease, clusters, ways, held.spare)
        return Outcome(plan, Walk(driver, spec.graph, facts, plan, inbox).run())


def _accepted(
    run: Store, spec: PipelineSpec, replacing: Sequence[str], ways: Ways, sighted: Mapping[str, Sighted] | None = None
) -> tuple[Facts, Plan]:
    """The facts and a plan that may start. DriftError or UsageError otherwise; the drift is also an event."""
    facts = survey(run, spec.graph, ways.verify_sources, sighted)
    plan = make_plan(spec.graph, facts, replacing)
    if error := refusal(plan, run.uri):
        lease = read_lease(run)
        for planned in plan.having("drifted"):
            if lease:
                StoreEvents(run, lease.fence, planned.node).emit("drifted", planned.reason)
        raise error
    return facts, plan


def _cpus_wanted(spec: PipelineSpec, plan: Plan) -> float:
    """Most CPUs that one node asks for at once, so that a laptop with fewer cores can run it too, within reason: forty
    ranks on two cores would take all of its memory, and are told to be too many instead."""
    cores = os.cpu_count() or 1
    most = float(cores)
    for planned in plan.due:
        resources = spec.graph.nodes[planned.node].resources
        workers = getattr(resources, "workers", 1)
        cpus = getattr(resources, "cpus_per_worker", None) or getattr(resources, "cpus_per_task", None) or 1.0
        most = max(most, float(cpus) * (workers if isinstance(workers, int) else max(workers)))
    return min(most, float(cores * RANKS_PER_CORE))
