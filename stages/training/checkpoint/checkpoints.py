"""Checkpoints one can trust: copied at a step's end, written and committed by a thread while training goes on.

A step is committed by a manifest that is written last, once all ranks agree that all its files are up. The threads of
the ranks meet in a process group of their own, so that nothing they do comes between the collectives of the training.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread

import torch.distributed as dist

from vitpipe.infra.errors import IntegrityError, Stopped, StorageError
from vitpipe.infra.faults import reach
from vitpipe.infra.full_disk import full_path
from vitpipe.infra.work import Rank
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import Events, Out
from vitpipe.stages.training import agree
from vitpipe.stages.training.checkpoint import committed_steps
from vitpipe.stages.training.checkpoint.committed_steps import STATE, Keep, StepFile, StepManifest, StepPlace
from vitpipe.stages.training.checkpoint.restore import Restore, Resumed
from vitpipe.stages.training.checkpoint.snapshot import Snapshot
from vitpipe.stages.training.checkpoint.state_files import LAYOUT, Run
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.measure.metrics_log import LogSnapshot

log = logging.getLogger(__name__)

_UPLOADS = 4
_BEARABLE = (StorageError, IntegrityError)
"""Errors of a save after which training goes on."""
AGAIN_S = 5.0
"""Between two tries of a save that is insisted on."""
_COMMIT_TIMEOUT_S = 3600.0
"""How long one rank's upload may make the others' threads wait; a rank that died ends the wait at once."""
ExtraFiles = Mapping[str, bytes | LogSnapshot]
"""Files of rank 0 that are committed with the state."""
_Written = tuple[list[File], tuple[Run, ...]]
"""What one rank has put into the store: files, and the numbers that are in them."""


@dataclass(frozen=True)
class Saved:
    """A committed step, and what it cost."""

    place: StepPlace
    manifest: StepManifest
    stall_seconds: float
    """Training stood still: the copy, and before it the wait for a save that was still under way."""
    commit_seconds: float
    """From the copy's beginning to the commit."""


class Checkpoints:
    """The steps of one node, as one rank sees them. All ranks call every method together, but for `news`.

    Files are first written to `scratch`, a folder of this rank alone: ranks of one machine share its disk.
    """

    def __init__(self, engine: Engine, out: Out, scratch: Path, events: Events, rank: Rank, keep: Keep) -> None:
        self._engine, self._out, self._scratch, self._events, self._rank = engine, out, scratch, events, rank
        self._keep, self._attempts = keep, (out.attempt, *out.earlier)
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=_COMMIT_TIMEOUT_S))
        assert isinstance(group, dist.ProcessGroup)  # all ranks are members
        self._group = group
        self._snapshot = Snapshot(engine, rank.rank)
        self._flight: Future[Saved] | None = None
        self._last: partial[Saved] | None = None
        self._news: list[Saved] = []
        self._unpruned = False
        """Whether old steps could not be deleted, of which one event tells until they can."""

    def resume(self) -> Resumed | None:
        """Load the newest step that is whole, of this attempt and the earlier ones. See `Restore.newest`."""
        agree.on_first(partial(committed_steps.mark_committed, self._out, self._attempts), self._rank.rank)
        return self.restore.newest(self._out.node, self._attempts)

    @property
    def restore(self) -> Restore:
        """Loads steps into this engine, on all ranks together."""
        return Restore(self._engine, self._scratch, self._events, self._rank)

    def save(self, step: int, samples_seen: int, extra_files: ExtraFiles) -> None:
        """Copy the state and leave the rest to a thread: `step-{step}`, with rank 0's `extra_files` in it.

        Waits first for a save that is still under way; one that the store or a disk would not take has cost that step
        alone, any other error of it is raised here.
        """
        start = time.monotonic()
        self._land()
        self._snapshot.take(step)
        stall = time.monotonic() - start
        files = extra_files if self._rank.rank == 0 else {}
        self._last = partial(self._commit, step, samples_seen, files, start, stall)
        self._flight = _in_background(self._last)

    def settle(self, insist_s: float = 0.0, stopping: Callable[[], str | None] = lambda: None) -> None:
        """Wait until the last save is committed; one that fails is tried again for `insist_s`, the state unchanged.

        Raises why it could not be, the same on all ranks; Stopped when `stopping` has a reason to end meanwhile.
        """
        until = time.monotonic() + insist_s
        while (failed := self._land()) is not None:
            if not agree.on_first(partial(self._is_tried_again, failed, until, stopping), self._rank.rank, self._group):
                raise failed
            time.sleep(AGAIN_S)
            assert self._last is not None  # it failed
            self._flight = _in_background(partial(self._last, again=True))

    def _is_tried_again(self, failed: Exception, until: float, stopping: Callable[[], str | None]) -> bool:
        if time.monotonic() + AGAIN_S > until:
            return False
        if reason := stopping():
            found = f"asked to end: {reason}; it could not be saved: {failed}"
            raise Stopped("save the last step", found, "run the same command again: it goes on from the one before")
        return True

    def close(self, wait_s: float = 60.0) -> None:
        """Let a save that is under way end, as well as it can."""
        if self._flight is not None:
            wait([self._flight], wait_s)

    def news(self) -> list[Saved]:
        """Steps committed since it was last asked."""
        if self._flight is not None and self._flight.done() and self._flight.exception() is None:
            self._news.append(self._flight.result())
            self._flight = None
        news, self._news = self._news, []
        return news

    def _land(self) -> Exception | None:
        """Wait for the save under way, if any; how it failed where that is bearable."""
        flight, self._flight = self._flight, None
        if flight is None:
            return None
        error = flight.exception()
        if isinstance(error, _BEARABLE):
            return error
        self._news.append(flight.result())
        return None

    def _commit(
        self, step: int, samples_seen: int, extra_files: ExtraFiles, start: float, stall: float, again: bool = False
    ) -> Saved:
        """In the thread: all of a save that training does not wait for."""
        place = StepPlace(attempt=self._out.attempt, step=step)
        try:
            written = agree.each(lambda: self._upload(step, extra_files), self._group)
            publish = partial(self._publish, place, samples_seen, written)
            manifest = agree.on_first(publish, self._rank.rank, self._group)
        except _BEARABLE as error:
            if self._rank.rank == 0 and not again:
                text = f"step {step} was not saved, training goes on; the next one is tried: {error.placed()}"
                self._events.emit("checkpoint_failed", text)
            raise
        return Saved(place, manifest, stall, time.monotonic() - start)

    def _upload(self, step: int, extra_files: ExtraFiles) -> _Written:
        folder = self._scratch / "save" / f"step-{step}"

        def put(name: str, content: bytes | LogSnapshot | None) -> File:
            path = f"step-{step}/{name}"
            if isinstance(content, bytes):
                return self._out.put(path, content)
            local = folder / Path(name).name
            if content is None:
                digest = self._snapshot.write(local.name, local)
            else:
                with local.open("wb") as target:
                    content.copy(target)
                digest = None
            reach("save:write", step, self._rank.rank)
            file = self._out.upload(local, path)
            local.unlink()
            if digest not in (None, file.digest):
                raise StorageError(f"save {path}", f"the scratch disk gave back {file.digest}, not {digest}", "see it")
            reach("save:upload", step, self._rank.rank)
            return file

        contents: dict[str, bytes | LogSnapshot | None] = {f"{STATE}/{name}": None for name in self._snapshot.files}
        contents |= extra_files
        try:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed process left; absent is the rule
            folder.mkdir(parents=True)
            with ThreadPoolExecutor(_UPLOADS) as pool:
                files = list(pool.map(put, contents.keys(), contents.values()))
        except OSError as error:
            asked, found = f"save step {step} by way of {folder}", f"{full_path(error, folder)}: {error.strerror}"
            raise StorageError(asked, found, "free space on its disk") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        reach("save:uploaded", step, self._rank.rank)
        return files, self._snapshot.runs

    def _publish(self, place: StepPlace, samples_seen: int, written: list[_Written]) -> StepManifest:
        """On rank 0: the layout, then the manifest that makes the step true, then what is kept no longer."""
        settings, layout = self._engine.settings, self._snapshot.layout(runs for _, runs in written)
        files = [self._out.put(f"step-{place.step}/{STATE}/{LAYOUT}", layout.encoded())]
        files += [file for uploaded, _ in written for file in uploaded]
        listed = (StepFile(path=file.path, bytes=file.bytes, sha256=file.sha256) for file in files)
        manifest = StepManifest(
            step=place.step,
            samples_seen=samples_seen,
            world_size=self._rank.world_size,
            zero=settings.zero,
            precision=settings.precision,
            micro_batch=self._engine.sampler.micro_batch,
            files=tuple(sorted(listed, key=lambda file: file.path)),
        ).sealed()
        self._out.commit(f"{manifest.folder}/manifest.json", manifest.encoded())
        reach("save:committed", place.step, self._rank.rank)
        try:
            size = sum(file.bytes for file in manifest.files)
            text = f"step {manifest.step}: {len(manifest.files)} files, {size} bytes in {place.folder}"
            self._events.emit("checkpoint_committed", text)
            committed_steps.prune(self._out, self._attempts, self._keep, place.step)
            self._unpruned = False
        except _BEARABLE as error:  # this one stands, and the next commit prunes again
            log.warning("step %s is committed, but: %s", place.step, error)
            if not self._unpruned:
                self._unpruned = True
                text = f"steps that `keep` no longer asks for stay in the store, tried again after each commit: {error}"
                self._events.emit("deletion_failed", text)
        return manifest


def _in_background(work: Callable[[], Saved]) -> Future[Saved]:
    """Begin work in a thread that a process which ends does not wait for."""
    ended: Future[Saved] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)

    Thread(target=run, name="vitpipe-checkpoint", daemon=True).start()
    return ended
