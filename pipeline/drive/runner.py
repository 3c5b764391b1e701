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
from vitpipe.infra.work import RANKS_PER_CORE
from vitpipe.pipeline.drive.copying import copying
from vitpipe.pipeline.drive.driver import Driver, DriverOptions
from vitpipe.pipeline.drive.exporting import exporting, publishing
from vitpipe.pipeline.drive.lease import Lease, hold
from vitpipe.pipeline.drive.signals import NoSignals, Signals
from vitpipe.pipeline.drive.walk import Inbox, StopRequested, Walk
from vitpipe.pipeline.plan.decide import make_plan, refusal
from vitpipe.pipeline.plan.planned import Plan, StoreFacts
from vitpipe.pipeline.plan.survey import BEFORE, survey
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.store.accepted_spec import SPEC, is_kept
from vitpipe.pipeline.store.records import Committed

OPTIONS = DriverOptions()


@dataclass(frozen=True)
class Outcome:
    """A run that is complete: every node of the graph has its record."""

    plan: Plan
    """What there was to do at the beginning; `plan.due` is empty when nothing ran."""
    committed: Mapping[str, Committed]


def run(spec: PipelineSpec, replacing: Sequence[str] = (), options: DriverOptions = OPTIONS) -> Outcome:
    """Run or resume every node that is not committed yet.

    `replacing` names nodes whose drifted results may be replaced, with all that depends on them. Errors: DriftError and
    UsageError before anything is written; LeaseLost when another driver is alive; the gravest error of the nodes that
    failed; Stopped after SIGTERM, SIGINT or `stop`.
    """
    run = open_store(spec.uri)
    facts, plan = _accepted(run, spec, replacing, options)
    for planned in plan.nodes.values():
        if planned.source and planned.source.is_loud:
            options.on_note(f"{planned.node}: {planned.source.note}")
    for name in replacing:
        if all(plan.nodes[id].action == "reuse" for id in spec.graph.named(name)):
            options.on_note(f"{name}: nothing to replace, what is committed is what is asked for")
    if plan.due:
        options.on_plan(plan)
    if not plan.due and is_kept(run, spec.text):
        return Outcome(plan, facts.records)
    options.probe()
    metrics_at = options.metrics_at()
    inbox: Inbox = Inbox()
    main = threading.current_thread() is threading.main_thread()
    with (
        Signals() if main else NoSignals() as signals,
        exporting(spec.name, metrics_at, signals, options.on_metrics) as begun,
        hold(run, inbox.put, options.timing, options.clock) as lease,
        spare_room(run) as spare,  # given back before the lease is
    ):
        begun(lease.fence)
        options.on_lease(lease.fence)
        # once more: another driver may have held the run until now
        facts, plan = _accepted(run, spec, replacing, options, facts)
        if plan.due or not is_kept(run, spec.text):
            lease.check()
            run.write(SPEC, spec.text.encode())
        if not plan.due:
            return Outcome(plan, facts.records)
        return _walk(spec, Held(run, lease, spare), facts, plan, inbox, signals, options)


@dataclass(frozen=True)
class Held:
    """A run that this driver holds."""

    run: Store
    lease: Lease
    spare: SpareRoom


def _walk(
    spec: PipelineSpec,
    held: Held,
    facts: StoreFacts,
    plan: Plan,
    inbox: Inbox,
    signals: Signals,
    options: DriverOptions,
) -> Outcome:
    with (
        options.connect(spec.name, _cpus_wanted(spec, plan)) as clusters,
        publishing(spec.name, held.run, plan, clusters if options.metrics_at() else None) as commits,
        copying(held.run) as copies,
    ):
        signals.install()  # ray.init sets its own
        signals.tell(lambda name: inbox.put(StopRequested(name)))
        if clusters.dashboard_url:
            options.on_cluster(clusters.dashboard_url)
        driver = Driver(spec.name, held.run, held.lease, clusters, options, held.spare, commits=commits)
        return Outcome(plan, Walk(driver, spec.graph, facts, plan, inbox, on_commit=copies.changed).run())


def _accepted(
    run: Store,
    spec: PipelineSpec,
    replacing: Sequence[str],
    options: DriverOptions,
    before: StoreFacts = BEFORE,
) -> tuple[StoreFacts, Plan]:
    """Return the store's facts and a plan that may start. DriftError, also as an event, or UsageError otherwise."""
    facts = survey(run, spec.graph, options.verify_sources, before, spec.reuse)
    plan = make_plan(spec.graph, facts, replacing)
    if error := refusal(plan, run.uri):
        lease = read_lease(run)
        for planned in plan.having("drifted"):
            if lease:
                StoreEvents(run, lease.fence, planned.node).emit("drifted", planned.reason)
        raise error
    return facts, plan


def _cpus_wanted(spec: PipelineSpec, plan: Plan) -> float:
    """Find the most CPUs that one node asks for at once, so that a laptop with fewer cores can run it too.

    Within reason: forty ranks on two cores would take all of its memory, and are refused as too many instead.
    """
    cores = os.cpu_count() or 1
    most = float(cores)
    for planned in plan.due:
        resources = spec.graph.nodes[planned.node].resources
        workers = getattr(resources, "workers", 1)
        cpus = getattr(resources, "cpus_per_worker", None) or getattr(resources, "cpus_per_task", None) or 1.0
        most = max(most, float(cpus) * (workers if isinstance(workers, int) else max(workers)))
    return min(most, float(cores * RANKS_PER_CORE))
