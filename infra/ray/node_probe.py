"""What one node of a cluster does with others when it is asked, so that they can be compared.

Lives in an actor on its node, but knows no Ray; torch is imported only where ranks meet.
"""

import contextlib
import fcntl
import os
import secrets
import time
from datetime import timedelta
from typing import IO, Any

from vitpipe.infra.errors import AlreadyExists, NotFound, StorageError, VitpipeError
from vitpipe.infra.ray.node_facts import NodeFacts, node_facts
from vitpipe.infra.ray.private_address import interface_of, listen_at
from vitpipe.infra.storage.conditions import round_trip
from vitpipe.infra.storage.folders import flock
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store

SEEN_S = 10.0
"""How long a node looks for what another one wrote."""
LOOK_S = 0.02


class NodeProbe:
    """The questions that `infra.ray.cluster_survey` asks. Each answers within its own bound, or raises."""

    def __init__(self) -> None:
        self._held: list[IO[Any]] = []

    def clock(self) -> float:
        """Tell the time here, in seconds since 1970."""
        return time.time()

    def facts(self) -> NodeFacts:
        """Look at this node."""
        return node_facts()

    def store(self, uri: str) -> list[str]:
        """Name the promises that the store breaks, tried with this node's own credentials."""
        try:
            return list(round_trip(open_store(uri), f"doctor-{secrets.token_hex(4)}/node/a0/step-0/probe"))
        except VitpipeError as error:
            return [str(error)]

    def create(self, uri: str, path: str, text: str) -> bool:
        """Create a name unless it is there; whether this node was the one who did."""
        try:
            open_store(uri).create(path, text.encode())
        except AlreadyExists:
            return False
        return True

    def write(self, uri: str, path: str, text: str) -> None:
        """Write a name, new or not."""
        open_store(uri).write(path, text.encode())

    def absent(self, uri: str, path: str) -> bool:
        """Look for a name that is not there yet: a file system may remember that."""
        store = open_store(uri)
        try:
            store.read(path)
        except NotFound:
            return not list(store.list(path))
        return False

    def sees(self, uri: str, path: str, text: str) -> float | None:
        """Read until a name says `text`; the seconds that it took, None after SEEN_S."""
        store, begun = open_store(uri), time.monotonic()
        while (waited := time.monotonic() - begun) < SEEN_S:
            with contextlib.suppress(NotFound):
                if store.read(path) == text.encode():
                    return waited
            time.sleep(LOOK_S)
        return None

    def hold(self, uri: str, path: str) -> bool:
        """Lock a file of a folder store until `release`; False where there are no locks, or no folder."""
        if (file := _opened(uri, path)) is None:
            return False
        try:
            flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (StorageError, BlockingIOError):
            file.close()
            return False
        self._held.append(file)
        return True

    def kept_out(self, uri: str, path: str) -> bool:
        """Try to lock the same file; whether that is refused, as it should be while another node holds it."""
        if (file := _opened(uri, path)) is None:
            return True
        with file:
            try:
                flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except StorageError:
                return False
        return False

    def release(self) -> None:
        """Give back what `hold` took."""
        while self._held:
            self._held.pop().close()

    def clean(self, uri: str, paths: list[str]) -> None:
        """Delete names that were made here or elsewhere."""
        store = open_store(uri)
        for path in paths:
            with contextlib.suppress(NotFound):
                store.delete(path)

    def listen(self, address: str) -> int:
        """Open the place where ranks meet, on this node's address; its port."""
        import torch.distributed as dist  # only ranks import torch

        listening = listen_at(address)
        port, descriptor = listening.getsockname()[1], listening.detach()  # the store closes it
        self._meeting = dist.TCPStore(  # type: ignore[attr-defined]  # torch keeps its stores to itself
            address, port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor
        )
        return int(port)

    def all_reduce(
        self, address: str, rank: int, ranks: int, where: tuple[str, int], name: str, size: int, seconds: float
    ) -> float:
        """Sum `size` bytes over the ranks some times; bytes a second that each one's network carried (bus bandwidth).

        `address` is this node's, and `name` sets one meeting apart from others at the same place. By NCCL where there
        is a GPU, else by gloo.
        """
        import torch
        import torch.distributed as dist

        if interface := interface_of(address):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        timeout, gpu = timedelta(seconds=seconds), torch.cuda.is_available()
        store: Any = getattr(self, "_meeting", None) if rank == 0 else None
        store = store or dist.TCPStore(*where, is_master=False, timeout=timeout)  # type: ignore[attr-defined]
        apart = dist.PrefixStore(name, store)  # type: ignore[attr-defined]  # torch keeps its stores to itself
        dist.init_process_group("nccl" if gpu else "gloo", store=apart, rank=rank, world_size=ranks, timeout=timeout)
        try:
            block = torch.ones(size // 4, device="cuda" if gpu else "cpu")
            best = min(_timed(block, gpu) for _ in range(4))  # the first one connects
        finally:
            dist.destroy_process_group()
        return 2 * (ranks - 1) / ranks * size / best


def _opened(uri: str, path: str) -> IO[Any] | None:
    """Open a file of a store in a folder, hidden from its listings; None for a store that is no folder."""
    store = open_store(uri)
    if not isinstance(store, LocalStore):
        return None
    file = store.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("a+b")


def _timed(block: Any, gpu: bool) -> float:
    import torch
    import torch.distributed as dist

    begun = time.perf_counter()
    dist.all_reduce(block)
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - begun
