"""Ray, as everything else sees it: `fan` for tasks, `gang` for ranks.

Satisfies `stages.contract.Cluster`. Imported by `infra.ray.connect` once Ray's environment is prepared.
"""

import logging
import math
import os
import signal
import site
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import ray
from ray.job_config import JobConfig

from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray import capacity, worker_output
from vitpipe.infra.ray.cluster_life import leaving
from vitpipe.infra.ray.counting import Gathering
from vitpipe.infra.ray.demand import Demand
from vitpipe.infra.ray.embedded import apart
from vitpipe.infra.ray.fanout import fan
from vitpipe.infra.ray.gang import gang
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.ray.head import ask_head
from vitpipe.infra.ray.head_dashboard import refuse_open
from vitpipe.infra.ray.leftovers import driver_folder
from vitpipe.infra.ray.one_queue import OneQueue
from vitpipe.infra.work import Done, Emit, GangNeeds, Item, Job, Rank, Result, Stop, TaskNeeds, Waits, unknown

log = logging.getLogger(__name__)

WAIT_S = 300.0
"""How long a cluster may lack machines that a node asks for, unless told otherwise."""
DASHBOARD_PORT = 8265

OBJECT_STORE_BYTES = 512 * 2**20
"""Of an embedded Ray. Results are small and data goes through the store; by default Ray takes a third of the memory."""


@dataclass(frozen=True)
class RayCluster:
    """A connected Ray, and with `named` one node's view of it. Close it, or use it as a context manager."""

    job: Job
    dashboard_url: str
    """`http://127.0.0.1:8265`; asks for the token that `ray get-auth-token` prints."""
    wait_s: float
    queue: OneQueue
    """The tasks and gangs of all nodes go through it."""
    gathering: Gathering
    """What brings the numbers of tasks and ranks here."""

    def named(
        self,
        node: str,
        *,
        fence: Stop | None = None,
        events: Emit | None = None,
        progress: Waits | None = None,
        seconds: float | None = None,
    ) -> Self:
        """Return the view of one node: its tasks and ranks carry the node's name, and end when `fence` asks them to."""
        counting = self.gathering.actor
        job = Job(self.job.run, node, fence, events, progress=progress, seconds=seconds, counting=counting)
        return replace(self, job=job)

    def counting(self) -> AbstractContextManager[None]:
        """Around the time in which what tasks and ranks count reaches this process's sink."""
        return self.gathering.going_on()

    def pace(self, node: str) -> float | None:
        """Divide what has ended of a node took by its estimate; None while nothing has."""
        return self.queue.pace.of(node)

    def held(self, node: str) -> Mapping[str, float]:
        """Return the seconds that a node's tasks and ranks held cores and GPUs. See `OneQueue.held`."""
        return self.queue.held(node)

    def rank(self, chains: Mapping[str, float]) -> None:
        """Order the work of all nodes. See `OneQueue.rank`."""
        self.queue.rank(chains)

    def gpus(self) -> int:
        """Count the GPUs of the whole cluster now."""
        return int(ask_head("count the GPUs of the cluster", ray.cluster_resources).get("GPU", 0))

    def fan(
        self,
        fn: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        resources: TaskNeeds,
        label: Callable[[Item], str] = str,
        seconds: Callable[[Item], float | None] = unknown,
    ) -> Iterator[Done[Item, Result]]:
        """Run many independent tasks, those of the longest chain of nodes first. See `infra.ray.fanout.fan`."""
        gpus = resources.gpus_per_task
        bundle = {"CPU": float(resources.cpus_per_task), "GPU": float(min(1, self.gpus()) if gpus is None else gpus)}
        return fan(
            fn,
            items,
            job=self.job,
            queue=self.queue,
            bundle=bundle,
            max_failures=resources.max_failures,
            wait_s=self.wait_s,
            label=label,
            seconds=seconds,
        )

    def gang(self, fn: Callable[[Rank], None], *, resources: GangNeeds) -> None:
        """Run N ranks in lockstep. See `infra.ray.gang.gang`."""
        workers, gpus = resources.workers, resources.gpus_per_worker
        least, most = (workers, workers) if isinstance(workers, int) else workers
        each = min(1, self.gpus()) if gpus is None else gpus
        size = Size(least, most, resources.cpus_per_worker or capacity.cores_beside(each), each)
        gang(
            fn,
            job=self.job,
            queue=self.queue,
            size=size,
            max_failures=resources.max_failures,
            wait_s=self.wait_s,
            hang_timeout_s=resources.hang_timeout_s,
        )

    def close(self) -> None:
        """Leave the cluster; an embedded one ends with all its processes."""
        leaving.set()
        ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def embed(
    run: str,
    cpus_wanted: float,
    wait_s: float,
    about: Mapping[str, str],
    dashboard_ports: tuple[int, ...] = (DASHBOARD_PORT, 0, 0),
) -> RayCluster:
    """Start a Ray on this machine that ends with this process; one try for each dashboard port (0: any free one)."""
    ray_auth.ensure_token()
    port, folder = _free_port(dashboard_ports[0]), driver_folder()
    with apart(folder.path):
        try:
            context = _init(
                about,
                address="local",
                num_cpus=max(os.cpu_count() or 1, math.ceil(cpus_wanted)),
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                dashboard_port=port,
                object_store_memory=OBJECT_STORE_BYTES,
                namespace=run,
            )
        except StorageError as error:  # another took the port meanwhile, or the machine is too busy for Ray's 30 s
            if len(dashboard_ports) == 1:
                raise
            log.warning("starting Ray once more: %s", error)
            return embed(run, cpus_wanted, wait_s, about, dashboard_ports[1:])
    folder.names(context.address_info["session_dir"])
    return _cluster(run, context, wait_s)


def join(run: str, address: str, wait_s: float, about: Mapping[str, str]) -> RayCluster:
    """Connect to a cluster that others started; this machine is one of its nodes."""
    if "://" in address or ":" not in address:
        do = "give host:port on one of its machines, or use `vitpipe submit`"
        raise UsageError(f"connect to Ray at {address}", "a driver has to run inside the cluster", do)
    ray_auth.require_answer(address)
    cluster = _cluster(run, _init(about, address=address, namespace=run), wait_s)
    try:
        refuse_open(cluster.dashboard_url)
    except StorageError:
        cluster.close()
        raise
    return cluster


def _cluster(run: str, context: Any, wait_s: float) -> RayCluster:
    dashboard = f"http://{context.dashboard_url}"
    log.info("Ray dashboard at %s", dashboard)
    leaving.clear()
    queue = OneQueue(capacity.machines, show=Demand()) if wait_s else OneQueue(capacity.machines)
    return RayCluster(Job(run, run), dashboard, wait_s, queue, Gathering(run))


def _free_port(wished: int) -> int:
    """Return the wished port, or any free one when it is taken."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wished))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _init(about: Mapping[str, str], **options: Any) -> Any:
    """Call `ray.init`, and leave the signal handlers of this process as they were."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)} if main else {}
    worker_output.into_the_log()
    try:
        job, quiet = _OwnCode(metadata=dict(about), _py_driver_sys_path=_code_paths()), logging.WARNING
        return ray.init(log_to_driver=True, logging_level=quiet, configure_logging=False, job_config=job, **options)
    except Exception as error:  # Ray raises bare Exceptions too
        ray.shutdown()
        do = "check that ~/.ray/auth_token is that cluster's token, and see `vitpipe doctor`"
        raise StorageError(f"connect to Ray ({options['address']})", str(error), do) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _OwnCode(JobConfig):  # type: ignore[misc]
    """A job whose workers import what this process does, whatever lies in the folder where it was started.

    Ray puts that folder first on their path, unless the job ships one: a `vitpipe` there would be taken for ours.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def _code_paths() -> list[str]:
    """Where this program lies, for the workers' path; nothing when it is installed, for they look there anyway."""
    folder = str(Path(__file__).absolute().parents[3])
    return [] if folder in (*site.getsitepackages(), site.getusersitepackages()) else [folder]
