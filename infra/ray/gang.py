"""N ranks in lockstep, on Ray's public core: started, watched, restarted together, and ended with the right error.

One actor for each rank, in placement groups, led by the thread of the driver that calls `gang`.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

from ray.exceptions import RayError

from vitpipe.infra.errors import Lost
from vitpipe.infra.ray import capacity
from vitpipe.infra.ray.cluster_life import cluster_gone
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.fanout import next_message
from vitpipe.infra.ray.gang_losses import Losses
from vitpipe.infra.ray.gang_notes import Ending
from vitpipe.infra.ray.gang_outlook import Outlook
from vitpipe.infra.ray.gang_places import places
from vitpipe.infra.ray.gang_ranks import begin
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.ray.gang_watch import GangWatch
from vitpipe.infra.ray.head import lost_cluster
from vitpipe.infra.ray.one_queue import OneQueue, Ticket
from vitpipe.infra.ray.patience import Patience
from vitpipe.infra.ray.wait import Wait
from vitpipe.infra.work import Job, Rank

log = logging.getLogger(__name__)


def gang(
    fn: Callable[[Rank], None],
    *,
    job: Job,
    queue: OneQueue,
    size: Size,
    max_failures: int,
    wait_s: float,
    hang_timeout_s: int,
) -> None:
    """Run `fn(rank)` on all ranks until all return; restart them together after a loss.

    It waits in the queue of all nodes ahead of every task: room is reserved for it, and no task delays the ranks.
    Errors: a rank's VitpipeError as it was raised; Stopped; Lost when `max_failures` losses are spent or Ray is
    gone; StageError when the same exception or lack of memory came twice in a row at the same step, or when too few
    machines are there for `wait_s`. A rank that is silent or lets others wait for `hang_timeout_s` counts as lost.
    """
    asked = f"run {size} ranks of {job.node}"
    patience = capacity.patience(size.bundle, size.least, wait_s, asked)
    patience.check()
    losses = Losses(job, asked, max_failures)
    try:
        with _turn(queue, job, size, patience) as placed:
            for restart in itertools.count():
                if _start(fn, losses, size, patience, hang_timeout_s, restart, placed):
                    return
    except RayError as error:
        if gone := cluster_gone():
            raise lost_cluster(asked, f"{gone}: {in_words(error)}") from error
        raise Lost(asked, in_words(error), "look at the cluster, then run the same command again") from error


@contextmanager
def _turn(queue: OneQueue, job: Job, size: Size, patience: Patience) -> Iterator[Callable[[Sequence[str]], None]]:
    """Hold the machines of all ranks in the queue, once it is their turn; tell what is given where the ranks are.

    Errors: as `gang`, while it is not.
    """
    inbox: SimpleQueue[Ticket[None]] = SimpleQueue()
    ticket = Ticket(None, size.bundle, job.seconds, inbox.put, is_gang=True, count=size.least, node=job.node)
    wait = Wait(job, queue)
    try:
        queue.join([ticket])
        wait.tell("missing")
        while next_message(inbox) is None:
            job.ask_to_stop()
            wait.look()
            patience.check()
        wait.over()
        yield partial(queue.placed, ticket)
        queue.leave([ticket], ended=True)
    finally:
        queue.leave([ticket])


def _start(
    fn: Callable[[Rank], None],
    losses: Losses,
    size: Size,
    patience: Patience,
    hang_timeout_s: int,
    restart: int,
    placed: Callable[[Sequence[str]], None],
) -> bool:
    """Start the ranks and lead them to their end; whether that is the gang's. Errors: as `gang`."""
    job, asked = losses.job, losses.asked
    with places(job, size, patience) as room:
        spots = room.take()
        placed([spot.node for spot in spots])
        losses.begin(len(spots))
        ranks = begin(fn, job, size, spots, asked)
        outlook = Outlook(job, asked, room, ranks.places)
        failures = GangWatch(job, ranks, size, restart, hang_timeout_s, outlook.look).lead()
        if not failures:
            ranks.leave()
            return True
        ending = Ending(failures, ranks.places, outlook.reclaimed)
        losses.check(ending)
        if not ending.noticed:
            log.warning("%s: a start failed\n%s", job.node, ending.traces)
        losses.count(ending, ranks.end())
        return False
