"""torch.distributed for the ranks of a gang: set up by Ray Train's controller, used in the ranks.

Knows addresses, ranks and devices; torch is imported only in a rank's own process.
"""

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.context import get_train_context

from vitpipe.infra.lease_state import Holder
from vitpipe.infra.ray import on_worker
from vitpipe.infra.ray.gang_notes import GangNotes, Process
from vitpipe.infra.ray.private_address import interface_of, listen_at
from vitpipe.infra.work import Rank

RESTART = "VITPIPE_RESTART"
SHUTDOWN_S = 10.0

NCCL_SETTINGS = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",  # as torchrun: a collective that fails or is late ends its process
    "NCCL_DEBUG": "WARN",  # NCCL says by itself only that something failed, not which connection or device
}
"""Set in every rank unless its environment already says otherwise. Which network NCCL takes is the cluster's to say.

torch's flight recorder is on by default (2000 events). The group's timeout, `hang_timeout_s`, finds a rank that lets
others wait: NCCL then ends the waiting ranks, each writes its stacks as it goes (`on_worker.answer_with_stacks`), and
`gang_watch` asks those that still live for theirs.
"""

_opened: list[Any] = []
"""The store that rank 0's process holds for its gang."""


@dataclass
class ProcessGroup(BackendConfig):  # type: ignore[misc]  # Ray's classes are untyped
    """What every rank needs to find the others."""

    timeout_s: int
    """A collective that takes longer fails on every rank, whoever made its group: a hung peer is found."""
    backend: str
    """`gloo` or `nccl`."""
    notes: GangNotes
    """Where starts are counted, and who the ranks are."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that Ray Train sets the ranks up with."""
        return _Start


class _Start(Backend):  # type: ignore[misc]
    """Lives in the controller, over all restarts of one gang until the controller is lost."""

    share_cuda_visible_devices = True  # as with torchrun: local rank k uses device k of its node

    def on_start(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        notes = backend_config.notes
        places = worker_group.get_worker_group_state().placement_group_handle.placement_group.id.hex()
        restart = notes.note(starts=notes.read().starts + 1, ranks=(), places=places).starts - 1
        try:
            address, port = worker_group.execute_single(0, _open_store)
            ranks = worker_group.execute(_set_environment, address, port, restart, backend_config.backend == "gloo")
            notes.note(ranks=tuple(ranks))  # before they train: every process that may commit is known
            worker_group.execute(_join, backend_config.backend, backend_config.timeout_s)
        except RayActorError as error:  # its machine has just gone; Ray Train tries again only what has this name
            raise WorkerGroupStartupFailedError(f"a rank was lost while the gang met: {error}") from error

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        leaving = worker_group.execute_async(_leave)
        ray.wait(leaving, num_returns=len(leaving), timeout=SHUTDOWN_S)  # a dead or hung rank is ended by Ray anyway


def here(threads: int, gpus: float) -> Rank:
    """Say where this process stands in its gang; torch gets its device and `threads` threads."""
    import torch  # only ranks import torch

    torch.set_num_threads(threads)
    context = ray.train.get_context()
    device = "cpu"
    if gpus:
        from ray.train.torch import get_device  # imports torch

        device = str(get_device())
        torch.cuda.set_device(device)
    return Rank(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world_size=context.get_local_world_size(),
        restart=int(os.environ[RESTART]),
        device=device,
        notice=preemption_notice,
        reached=on_worker.reached,
    )


def preemption_notice() -> str | None:
    """Say what Ray told this rank of machines that are taken away soon. Ray's public function makes all ranks wait."""
    info = get_train_context().preemption_context.preemption_info
    if info is None:
        return None
    until = f" by {time.strftime('%H:%M:%S', time.localtime(info.deadline_ms / 1000))}" if info.deadline_ms else ""
    return f"preemption: {', '.join(info.preempted_node_ids)} will be taken away{until}"


def close_together(noticed: bool) -> bool:
    """Wait until every rank has come here, at most the group's timeout; whether any of them was `noticed`."""
    import torch.distributed as dist  # only ranks import torch

    told = [False] * dist.get_world_size()
    dist.all_gather_object(told, noticed)
    return any(told)


def _open_store() -> tuple[str, int]:
    """On rank 0, listen where the ranks meet. A port that was only looked up could be another's by then."""
    import torch.distributed as dist  # only ranks import torch

    address = ray.util.get_node_ip_address()
    listening = listen_at(address)
    port, descriptor = listening.getsockname()[1], listening.detach()  # the store closes it
    _opened.append(
        dist.TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor)  # type: ignore[attr-defined]
    )
    return address, port


def _set_environment(address: str, port: int, restart: int, on_cpu: bool) -> Process:
    """Set what torch, DeepSpeed and we read in a rank; return which process it is."""
    context = ray.train.get_context()
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(context.get_world_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        LOCAL_RANK=str(context.get_local_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        LOCAL_SIZE=str(context.get_local_world_size()),  # DeepSpeed's device count on CPUs
        NODE_RANK=str(context.get_node_rank()),
    )
    for name, value in NCCL_SETTINGS.items():
        os.environ.setdefault(name, value)
    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ[RESTART] = str(restart)
    if on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import torch.distributed  # noqa: F401  # seconds of it: now, before the ranks wait for each other

    return Process(ray.get_runtime_context().get_node_id(), Holder.me())


def _join(backend: str, timeout_s: int) -> None:
    import torch.distributed as dist  # only ranks import torch
    from torch.distributed import distributed_c10d as groups

    timeout = timedelta(seconds=timeout_s)
    # for the groups that DeepSpeed makes, whose collectives would wait for 30 minutes (gloo)
    groups.default_pg_timeout = timeout
    groups.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]  # torch keeps it to itself
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = _opened[-1] if rank == 0 else dist.TCPStore(*where, is_master=False, timeout=timeout)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)


def _leave() -> None:
    import torch.distributed as dist  # only ranks import torch

    if dist.is_initialized():
        dist.destroy_process_group()
