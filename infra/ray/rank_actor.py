"""One rank, in a process of its own: an actor that answers the driver while a thread of it trains.

Whatever may take long, or hang, is in that thread: importing, meeting the others, training. The actor itself answers at
every moment, so that silence means that the process is stopped.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from queue import SimpleQueue

import ray
from ray import cloudpickle

from vitpipe.infra.errors import Stopped, VitpipeError
from vitpipe.infra.lease_state import Holder
from vitpipe.infra.ray import on_worker, process_group
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.gang_notes import Address, Beat, Failure, News, RankProcess, Seat
from vitpipe.infra.work import Job, Rank

ALONE_S = {True: 30.0, False: 120.0}
"""A rank that failed, or that is done, ends itself when nobody has asked it for so long: its driver stands still, and
whoever takes the run over wants the machine."""


class RankActor:
    """What Ray runs, under a class of the node's name."""

    def __init__(self, label: str) -> None:
        """Begin to answer as `{run}/{node}[{rank}]`; to a signal, too."""
        self._label = label
        self._beat = Beat()
        self._news = News()
        self._asked = time.monotonic()
        self._where: SimpleQueue[Address] = SimpleQueue()
        on_worker.answer_with_stacks()
        on_worker.forget_steps()

    def __repr__(self) -> str:
        """What the dashboard shows for it."""
        return self._label

    def place(self) -> RankProcess:
        """Say where this process runs, and with which GPUs."""
        context = ray.get_runtime_context()
        gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", ())))
        return RankProcess(context.get_node_id(), ray.util.get_node_ip_address(), Holder.me(), gpus)

    def begin(self, seat: Seat, work: bytes) -> None:
        """Begin the pickled `(fn, job)` in a thread; does not wait for it."""
        threading.Thread(target=self._run, args=(seat, work), name="rank", daemon=True).start()

    @ray.method(enable_task_events=False)  # type: ignore[untyped-decorator]  # as tasks they would be thousands
    def beat(self, news: News) -> Beat:
        """Hear the news, and say how this rank is."""
        if news.address and not self._news.address:
            self._where.put(news.address)
        self._news, self._asked = news, time.monotonic()
        return self._beat

    def leave(self) -> None:
        """Leave the group after the end."""
        process_group.leave()

    def end(self) -> None:
        """End this process at once, with all stacks in its log."""
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGKILL)

    def _run(self, seat: Seat, work: bytes) -> None:
        try:
            here = ray.util.get_node_ip_address()
            process_group.set_environment(seat, here)
            where = process_group.load(seat, here)
            fn, job = cloudpickle.loads(work)
            on_worker.prepare(job, rank=seat.rank)
            if not seat.rank and job.progress:
                job.progress.begun()
            self._beat = Beat(is_ready=True, address=where)
            failure = self._train(seat, fn, job)
        except BaseException as error:
            failure = failure_of(error)
        self._beat = Beat(is_ready=True, has_ended=True, failure=failure)
        while (left := self._asked + ALONE_S[failure is not None] - time.monotonic()) > 0:
            time.sleep(left)
        os.kill(os.getpid(), signal.SIGKILL)

    def _train(self, seat: Seat, fn: Callable[[Rank], None], job: Job) -> Failure | None:
        noticed = False
        try:
            with on_worker.named_errors(f"run rank {seat.rank} of {job.node}"):
                process_group.join(seat, self._where.get())  # the driver ends a gang that does not meet
                try:
                    fn(self._rank(seat))
                except Stopped:
                    # together: the first to leave would take the others with it, perhaps in the middle of a commit
                    noticed = process_group.close_together(self._news.notice is not None)
                    raise
        except BaseException as error:
            return failure_of(error, noticed and isinstance(error, Stopped))
        finally:
            on_worker.last_words(job)
        return None

    def _rank(self, seat: Seat) -> Rank:
        return Rank(
            rank=seat.rank,
            world_size=seat.world_size,
            local_rank=seat.local_rank,
            local_world_size=seat.local_world_size,
            restart=seat.restart,
            device=seat.device,
            notice=lambda: self._news.notice,
            reached=on_worker.reached,
            threads=seat.threads,
            since=seat.since,
        )


def failure_of(error: BaseException, noticed: bool = False) -> Failure:
    """Put an exception of a rank into words; one of ours goes as it is, others might need torch to be read."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return Failure(
        words=f"{in_words(error)}{notes}",
        error=error if isinstance(error, VitpipeError) else None,
        trace="".join(traceback.format_exception(error)),
        noticed=noticed,
    )
