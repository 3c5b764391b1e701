"""Ranks without Ray: one in this process, or several in processes of their own, and the doors that a stage is given.

Only to check a machine: no restarts, no budget, no fan-out. A run's ranks are started by `infra.ray` alone.
"""

import json
import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from vitpipe.infra import faults
from vitpipe.infra.errors import StageError, VitpipeError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.work import Rank
from vitpipe.stages.contract import Out, TaskContext
from vitpipe.stages.training.engine import forget_gang

PRELOADED = ["deepspeed", "vitpipe.stages.pretrain.rank"]


@dataclass(frozen=True)
class RankPlacing:
    """Where ranks run and how they meet."""

    device: str
    backend: str
    deterministic: bool = True
    """Whether torch is told to take only kernels that give the same bits again."""
    faults: tuple[Mapping[str, Any], ...] = ()
    """As `infra.faults` reads them."""


@contextmanager
def one_rank(device: str) -> Iterator[Rank]:
    """Be the only rank, in this process."""
    with tempfile.TemporaryDirectory() as folder, _joined(RankPlacing(device, _backend(device)), 0, 1, folder) as rank:
        yield rank


def gang(fn: Callable[[Rank], None], ranks: int, placing: RankPlacing) -> None:
    """Run so many ranks to their end. The error of a rank, VitpipeErrors first; StageError for one that was killed."""
    # On a GPU each begins anew: what a server had imported might have touched the device.
    context: SpawnContext | ForkServerContext = SpawnContext()
    if placing.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        context = ForkServerContext()
        context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        processes: list[BaseProcess] = [
            context.Process(target=_rank_process, args=(fn, rank, ranks, placing, folder)) for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            while any(one.is_alive() for one in processes) and not any(one.exitcode for one in processes):
                processes[0].join(timeout=0.05)
            if any(one.exitcode for one in processes):
                processes[0].join(timeout=2)  # a rank that stops together with the failed one has its say too
        finally:
            for process in processes:
                process.kill()
                process.join()
        codes = [process.exitcode for process in processes]
        if any(codes):
            errors = [pickle.loads(path.read_bytes()) for path in sorted(Path(folder).glob("error-*"))]
            errors.sort(key=lambda error: not isinstance(error, VitpipeError))  # before the broken pipes it caused
            raise errors[0] if errors else StageError("run ranks", f"they ended with {codes} and left no error")


def _rank_process(fn: Callable[[Rank], None], rank: int, ranks: int, placing: RankPlacing, folder: str) -> None:
    if placing.faults:
        os.environ[faults.SETTING] = json.dumps(placing.faults)
    if placing.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    try:
        with _joined(placing, rank, ranks, folder) as joined:
            fn(joined)
    except Exception as error:
        try:
            told = pickle.dumps(error)
            pickle.loads(told)
        except Exception:  # one that only its library can make again
            told = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        Path(folder, f"error-{rank}").write_bytes(told)
        raise SystemExit(1) from error


@contextmanager
def _joined(placing: RankPlacing, rank: int, ranks: int, folder: str) -> Iterator[Rank]:
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(ranks),
        LOCAL_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29500",
    )
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # one machine, which may have no network at all
        os.environ.setdefault(name, "lo")
    device = placing.device
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    elif placing.backend == "nccl":
        device = f"cuda:{rank}"
    if device != "cpu":
        torch.cuda.set_device(device)
    store = dist.FileStore(f"{folder}/rendezvous", ranks)  # type: ignore[attr-defined]
    dist.init_process_group(placing.backend, store=store, rank=rank, world_size=ranks)
    try:
        yield Rank(rank, ranks, rank, ranks, restart=0, device=device)
    finally:
        dist.destroy_process_group()
        forget_gang()


def _backend(device: str) -> str:
    return "gloo" if device == "cpu" else "nccl"


@dataclass(frozen=True)
class OwnFence:
    """A fence that always holds: nobody else knows this store. At its n-th question, one a step, it ends the work."""

    stop_at: int = 0
    kill_at: int = 0
    asked: list[int] = field(default_factory=list)

    def check(self) -> None:
        """Return."""

    def stopping(self) -> str | None:
        """Say that the time to stop has come, or kill this process."""
        self.asked.append(1)
        if len(self.asked) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return "the check asked to" if len(self.asked) == self.stop_at else None


@dataclass(frozen=True)
class Quiet:
    """Events, metrics and progress that nobody listens to."""

    def emit(self, kind: str, text: str) -> None:
        """Drop an event."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Drop a gauge's value."""

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Drop a count."""

    def update(self, step: int, total: int, unit: str = "steps", **facts: Any) -> None:
        """Drop how far the work is."""


def doors(
    folder: Path, node: str, attempt: str = "a1", earlier: tuple[str, ...] = (), fence: OwnFence | None = None
) -> TaskContext:
    """Make the doors of one attempt at `node`, over `folder/store`."""
    fence, quiet = fence or OwnFence(), Quiet()
    store = open_store(f"file://{folder}/store").child("check").child(node)
    header = json.dumps({"node": node}).encode()
    out = Out(store, attempt, fence, header, earlier)
    scratch = folder / "local" / node / attempt
    scratch.mkdir(parents=True, exist_ok=True)
    return TaskContext(
        run="check", node=node, out=out, scratch=scratch, fence=fence, metrics=quiet, events=quiet, progress=quiet
    )
