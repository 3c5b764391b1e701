"""torch.distributed in a rank's process: its environment, where ranks meet, and how they leave.

Knows addresses, ranks and devices; torch is imported only in a rank's own process.
"""

import os
from datetime import timedelta
from typing import Any

from vitpipe.infra.ray.gang_notes import Address, Seat
from vitpipe.infra.ray.private_address import interface_of, listen_at

NCCL_SETTINGS = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",  # as torchrun: a collective that fails or is late ends its process
    "NCCL_DEBUG": "WARN",  # NCCL says by itself only that something failed, not which connection or device
}
"""Set in every rank unless its environment already says otherwise. Which network NCCL takes is the cluster's to say.

torch's flight recorder is on by default (2000 events). The group's timeout, `hang_timeout_s`, finds a rank that lets
others wait: NCCL then ends the waiting ranks, each writes its stacks as it goes (`on_worker.answer_with_stacks`), and
those that still live are asked for theirs before they are ended.
"""

_opened: list[Any] = []
"""The store that rank 0's process holds for its gang."""


def set_environment(seat: Seat, address: str) -> None:
    """Set what torch, DeepSpeed and we read in a rank; `address` is its machine's."""
    os.environ.update(
        RANK=str(seat.rank),
        WORLD_SIZE=str(seat.world_size),
        LOCAL_RANK=str(seat.local_rank),
        LOCAL_WORLD_SIZE=str(seat.local_world_size),
        LOCAL_SIZE=str(seat.local_world_size),  # DeepSpeed's device count on CPUs
        NODE_RANK=str(seat.node_rank),
    )
    for name, value in NCCL_SETTINGS.items():
        os.environ.setdefault(name, value)
    if interface := interface_of(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if seat.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seat.gpus)
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"


def load(seat: Seat, address: str) -> Address | None:
    """Import torch, which takes seconds, for this rank's device and threads; on rank 0, listen where the ranks meet.

    A port that was only looked up could be another's by then.
    """
    import torch  # only ranks import torch
    import torch.distributed as dist

    torch.set_num_threads(seat.threads)
    if seat.gpus:
        torch.cuda.set_device(seat.device)
    if seat.rank:
        return None
    listening = listen_at(address)
    port, descriptor = listening.getsockname()[1], listening.detach()  # the store closes it
    _opened.append(
        dist.TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor)  # type: ignore[attr-defined]
    )
    return address, port


def join(seat: Seat, where: Address) -> None:
    """Meet the other ranks. torch's errors when they do not all come within the group's timeout."""
    import torch.distributed as dist  # only ranks import torch
    from torch.distributed import distributed_c10d as groups

    os.environ.update(MASTER_ADDR=where[0], MASTER_PORT=str(where[1]))
    timeout = timedelta(seconds=seat.timeout_s)
    # for the groups that DeepSpeed makes, whose collectives would wait for 30 minutes (gloo)
    groups.default_pg_timeout = timeout
    groups.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]  # torch keeps it to itself
    backend = "nccl" if seat.gpus else "gloo"
    store = _opened[-1] if seat.rank == 0 else dist.TCPStore(*where, is_master=False, timeout=timeout)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=seat.rank, world_size=seat.world_size, timeout=timeout)


def close_together(noticed: bool) -> bool:
    """Wait until every rank has come here, at most the group's timeout; whether any of them was `noticed`."""
    import torch.distributed as dist  # only ranks import torch

    told = [False] * dist.get_world_size()
    dist.all_gather_object(told, noticed)
    return any(told)


def leave() -> None:
    """End the process group, if there is one."""
    import torch.distributed as dist  # only ranks import torch

    if dist.is_initialized():
        dist.destroy_process_group()
