"""Two drivers on one shared disk whose `flock` holds on one machine alone: each in a PID namespace of its own.

Run as a program this file is one of them: it takes the lease, or counts, when a line on its input says so. The library
that makes `flock` a no-op, and syncing slow enough for a race, is compiled here.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitpipe.infra import lease_state
from vitpipe.infra.errors import Changed, LeaseLost, VitpipeError
from vitpipe.infra.lease_state import LEASE, LeaseState, Timing
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.lease import acquire

LIBRARY = """
#include <unistd.h>
int flock(int fd, int how) { return 0; }
int fsync(int fd) { usleep(300); return 0; }
"""
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
QUICK = Timing(renew_s=0.02, commit_s=5.0, watch_s=10.0, look_s=0.01)


class Locked(LocalStore):
    """The negative control: compare and rename under `flock`, as swaps were made before."""

    def swap(self, path: str, data: bytes, version: str) -> str:
        with (self.root / f".lock-{path}").open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if self.read_version(path)[1] != version:
                raise Changed(f"replace {path}", "it was changed")
            self.write(path, data)
        return self.read_version(path)[1]


STORES: dict[str, type[LocalStore]] = {"generations": LocalStore, "locked": Locked}


class Rival:
    """One driver: a process in a PID namespace of its own, or where that is not allowed, with the name of another."""

    def __init__(self, library: Path, side: int) -> None:
        apart = not subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
        self.process = subprocess.Popen(
            [*(UNSHARE if apart else ()), sys.executable, __file__, "" if apart else str(side)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "LD_PRELOAD": str(library)},
        )  # fmt: skip

    def ask(self, verb: str, **args: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"verb": verb, **args}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@contextmanager
def rivals(folder: Path) -> Iterator[tuple[Rival, Rival]]:
    """Both, ready to be asked."""
    (folder / "noflock.c").write_text(LIBRARY)
    library = folder / "noflock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "noflock.c"], check=True)
    pair = Rival(library, 1), Rival(library, 2)
    try:
        for rival in pair:
            rival.ask("ready")
        for rival in pair:
            rival.answer()
        yield pair
    finally:
        for rival in pair:
            rival.end()


def holders(pair: tuple[Rival, Rival], store: str, run: Path) -> list[int]:
    """Let both start on a run that was given up; the fences they hold it under."""
    STORES[store](run).create(LEASE, LeaseState(7, 3, None).encode())
    for rival in pair:
        rival.ask("take", store=store, folder=str(run))
    fences = [fence for rival in pair if (fence := rival.answer()) is not None]
    for rival in pair:
        rival.ask("end")
    for rival in pair:
        rival.answer()
    return fences


def _take(store: Store) -> Any:
    try:
        lease = acquire(store, QUICK)
    except LeaseLost:
        return None
    lease.keep(lambda error: None)
    return lease


def _count(store: Store, times: int) -> int:
    """Count up in three processes, `times` confirmed swaps each; what went wrong in how many."""
    children = [child for _ in range(3) if (child := os.fork()) or _counted(store, times)]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _counted(store: Store, times: int) -> bool:
    try:
        while times:
            data, version = store.read_version("counter")
            try:
                store.swap("counter", str(int(data) + 1).encode(), version)
                times -= 1
            except Changed:
                continue
    finally:
        os._exit(1 if times else 0)


def main() -> None:
    if side := sys.argv[1]:
        real = lease_state._namespace
        lease_state._namespace = lambda kind: real(kind) + side
    lease = None
    for line in sys.stdin:
        asked, answer = json.loads(line), None
        try:
            store = STORES[asked["store"]](Path(asked["folder"])) if "store" in asked else None
            match asked["verb"]:
                case "take":
                    lease = _take(store)
                    answer = lease and lease.fence
                case "count":
                    answer = _count(store, asked["times"])
                case "end" if lease:
                    lease.end()
                    lease = None
        except VitpipeError as error:
            answer = str(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
