"""One node from its inputs to its record, in a thread of its own. Knows no other node and no order."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from vitpipe.infra.curves import forget_others
from vitpipe.infra.errors import LeaseLost, Lost, StageError, Stopped, StorageError, VitpipeError
from vitpipe.infra.full_disk import full_path, is_full
from vitpipe.infra.metrics import NodeMetrics
from vitpipe.infra.progress import StoreProgress
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive import adopting
from vitpipe.pipeline.drive.cluster_events import ClusterEvents
from vitpipe.pipeline.drive.driver import Driver
from vitpipe.pipeline.drive.held_teller import telling_held
from vitpipe.pipeline.drive.node_log import PATH, node_log
from vitpipe.pipeline.drive.provenance import code_version, package_versions
from vitpipe.pipeline.drive.shared_pieces import SharedPieces
from vitpipe.pipeline.plan.fingerprint import Fingerprint
from vitpipe.pipeline.plan.planned import Planned
from vitpipe.pipeline.spec.graph import Node
from vitpipe.pipeline.spec.text.written import located
from vitpipe.pipeline.store.attempts import COMMITTED, ERROR, Refs, earlier, header, list_attempts
from vitpipe.pipeline.store.held import held_before, held_seconds
from vitpipe.pipeline.store.records import Committed, commit, read_committed
from vitpipe.pipeline.store.results import ResultPlace, announce, are_equal, taken_by
from vitpipe.stages.artifacts import Artifact, File
from vitpipe.stages.contract import Inputs, Out, StageContext
from vitpipe.stages.record import Record
from vitpipe.stages.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeRun:
    """Everything one node needs to run under this driver."""

    driver: Driver
    node: Node
    planned: Planned
    wanted: Fingerprint
    given: Mapping[str, tuple[Committed, ...]]
    """The artifacts that it takes, by input name."""
    seconds: float | None = None
    """How long its work will take, as far as anybody knows."""

    @property
    def store(self) -> Store:
        """The node's folder."""
        return self.driver.run.child(self.node.id)

    @property
    def refs(self) -> Refs:
        """Each input's artifacts as the record will name them."""
        return {name: tuple(one.ref for one in many) for name, many in self.given.items()}

    def run(self) -> Committed:
        """Do the work and commit it; return what the store then holds.

        Errors: any VitpipeError of the stage as it is; everything else wrapped into one.
        """
        found = read_committed(self.store, self.node.id)
        if found and found.answers(self.wanted.sha256, self.refs) and not self.planned.of_other_data:
            return found  # its inputs were computed again and came out the same
        try:
            return self._attempt()
        except BaseException as error:
            failure = self._failure(error)
            if not isinstance(failure, LeaseLost):
                self._tell_failure(failure)
            raise failure from error

    @property
    def attempt(self) -> str:
        """Name of this driver's attempt: `a{fence}`."""
        return f"a{self.driver.lease.fence}"

    def _attempt(self) -> Committed:
        out = self._out()
        out.begin()
        scratch = self.driver.scratch(self.node.id)
        shutil.rmtree(scratch, ignore_errors=True)  # what killed drivers left: we are the only one that holds the run
        tell_dropped = partial(self.driver.emit, self.node.id, "log_dropped")
        try:
            told = telling_held(out, self.wanted.sha256, self._held)
            with node_log(self.node.id, out, scratch / "log", tell_dropped), told:
                return self._logged(out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _out(self) -> Out:
        adopt = earlier(list_attempts(self.store, self.node.stage.pieces), self.wanted.sha256, self.refs)
        lease = self.driver.lease
        facts = {"code": code_version(), "versions": package_versions(), "started": _now(), "holder": lease.holder.id}
        about = header(self.node, self.wanted.sha256, self.wanted.recipe, self.refs, **facts)
        return Out(self.store, self.attempt, lease.fence_for_tasks(), about, tuple(one.name for one in adopt))

    def _logged(self, out: Out) -> Committed:
        node, driver = self.node.id, self.driver
        try:
            committed = self._commit(out)
        except Stopped as error:
            log.info("%s was stopped: %s", node, error)
            raise
        except BaseException as error:
            log.error("%s ended with %r", node, error, exc_info=error)
            raise
        seconds = committed.record.seconds
        driver.emit(node, "committed", f"{out.attempt} after {seconds:.0f} s, {len(committed.record.files)} files")
        return committed

    def _commit(self, out: Out) -> Committed:
        started, began = _now(), time.monotonic()
        if self.planned.adopts and (found := self._adopted(out, self.planned.adopts)):
            seconds = round(time.monotonic() - began, 3)
            about = {"node": self.node.id, "inputs": self.refs, "started": started, "seconds": seconds}
            record = adopting.record_of(self.planned.adopts, found, attempt=out.attempt, **about)
        else:
            record = self._computed(out, started, began)
        announced = ResultPlace(self.driver.name, self.node.id)
        try:
            announce(self.driver.store, record.fingerprint, announced)
        except StorageError as error:  # other runs will not find it, and compute it
            log.warning("%s is not announced to other runs of the store: %s", self.node.id, error)
        replaces, anew = self.planned.replaces, self.planned.of_other_data
        committed = commit(self.store, record, self.driver.lease, replace=replaces, anew=anew)
        self._mark(out, committed)
        return committed

    def _adopted(self, out: Out, result: Committed) -> tuple[File, ...] | None:
        """Take over the files of another run's result; None, and an event, when they are not what it says."""
        self.driver.emit(self.node.id, "adopted", f"{result.uri} as {out.attempt}, nothing is computed")
        context = self._context(out)
        # an adoption that was refused upstream may have left other bytes than the plan had counted on
        same = are_equal(taken_by(result), self.given)
        problem = adopting.problem(result, context) if same else f"{result.uri} was made of other data"
        if problem:
            self.driver.emit(self.node.id, "adoption_refused", f"{problem}; it is computed here instead")
            return None
        return adopting.take(result, self.driver.store, context, self.node.stage.pieces)

    def _computed(self, out: Out, started: str, began: float) -> Record:
        kind = "resumed" if self.planned.action == "resume" else "started"
        self.driver.emit(self.node.id, kind, f"{self.planned.stage} as {out.attempt}: {self.planned.reason}")
        artifact = self.node.stage.run_fn()(self.node.config, self._inputs(), self._context(out))
        return self._record(out, artifact, started, time.monotonic() - began)

    def _mark(self, out: Out, committed: Committed) -> None:
        """Mark the attempt as committed: by our record, or by an equal one that was quicker."""
        try:
            out.put(COMMITTED, committed.sha256.encode())
        except StorageError as error:  # the record is there, and says more
            log.warning("%s is committed, but its mark could not be written: %s", self.node.id, error)

    def _inputs(self) -> Inputs:
        return Inputs({name: [one.artifact() for one in many] for name, many in self.given.items()})

    def _context(self, out: Out) -> StageContext[Settings]:
        driver, node, events = self.driver, self.node.id, self.driver.events(self.node.id)
        progress = StoreProgress(self.store, out.attempt, driver.lease.fence)
        progress.begin()
        try:
            forget_others(self.store, (out.attempt, *out.earlier))
        except StorageError as error:  # they are only looked at
            log.warning("curves of an earlier recipe of %s may be shown for a while: %s", node, error)
        heard = ClusterEvents(events, progress)
        cluster = driver.clusters.named(node, fence=out.fence, events=heard, progress=progress, seconds=self.seconds)
        return StageContext(
            run=driver.name,
            node=node,
            out=out,
            scratch=driver.scratch(node) / out.attempt,
            fence=out.fence,
            metrics=NodeMetrics(driver.name, node),
            events=events,
            progress=progress,
            cluster=cluster,
            shared=SharedPieces(driver.run, out.attempt, out.fence, driver.turns),
            resources=self.node.resources,
        )

    def _record(self, out: Out, artifact: Artifact, started: str, seconds: float) -> Record:
        return Record(
            node=self.node.id,
            stage=self.node.stage.name,
            fingerprint=self.wanted.sha256,
            recipe=dict(self.wanted.recipe),
            config=self.node.config.model_dump(mode="json"),
            resources=self.node.resources.model_dump(mode="json"),
            inputs=self.refs,
            output=artifact.facts(),
            files=artifact.files,
            metrics={**artifact.metrics, **held_seconds(self._held(), held_before(self.store, out.earlier))},
            estimate=self.planned.estimate.model_dump(mode="json", exclude_none=True),
            code=code_version(),
            versions=package_versions(),
            started=started,
            seconds=round(seconds, 3),
            attempt=out.attempt,
        )

    def _held(self) -> Mapping[str, float]:
        return self.driver.clusters.held(self.node.id)

    def _failure(self, error: BaseException) -> VitpipeError:
        """Turn what ended the node into one of our errors; LeaseLost when the run is no longer ours."""
        where = f"{self.store.uri}/{self.attempt}/{PATH}"
        failure = located(as_vitpipe_error(error, self.node.id, where), self.node.written)
        if isinstance(failure, Lost) and (reason := self.driver.lease.stopping()):
            found = f"asked to end: {reason}; {failure.found}"  # whoever wants us to end may have ended ranks first
            return Stopped(failure.asked, found, "run the same command again to go on")
        return failure

    def _tell_failure(self, failure: VitpipeError) -> None:
        """Leave the reason beside the attempt, for `status`; the store may be what failed."""
        kind = "preempted" if isinstance(failure, Stopped) else "failed"
        reason = json.dumps({**failure.to_json(), "time": _now()}).encode()
        try:
            self.driver.write_last_words(lambda: self.store.write(f"{self.attempt}/{ERROR}", reason))
        except StorageError as error:
            log.warning("the reason could not be written to the store: %s", error)
        self.driver.emit(self.node.id, kind, str(failure))


def as_vitpipe_error(error: BaseException, node: str, where: str) -> VitpipeError:
    """Turn any error into one of ours: a full disk, exhausted memory, or a bug whose traceback lies at `where`."""
    if isinstance(error, VitpipeError):
        return error
    if isinstance(error, SystemExit):  # Ray's, in a thread that waits for it while this process leaves the cluster
        return Lost(f"run {node}", "this process left the cluster meanwhile", "run the same command again to go on")
    if isinstance(error, MemoryError):
        return StageError(f"run {node}", "the driver ran out of memory", "use a machine with more, or smaller pieces")
    if is_full(error):
        return StorageError(f"run {node}", f"{full_path(error)} is full: {error}", "free space there, then run again")
    found = f"a bug in vitpipe: {type(error).__name__}: {error}"
    return VitpipeError(f"run {node}", found, f"please report it; the traceback is in {where}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
