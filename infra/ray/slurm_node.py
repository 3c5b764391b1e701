"""One node of a Slurm job, as a program: `srun python -m vitpipe.infra.ray.slurm_node run my.yaml`.

The first node starts Ray's head, then `vitpipe` with the arguments as its driver; the others join that Ray until it is
gone. Each offers what the job was given, not what the machine has. Ends with the driver's exit code, or RESUMABLE.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from vitpipe.infra.errors import StorageError
from vitpipe.infra.ray.allocation import Allocation, own_address, temporary_folder
from vitpipe.infra.ray.connect import prepare_environment

RESUMABLE = 75
"""A signal ended the driver with 6: the same command would go on. 6 alone is also what `vitpipe stop` leads to."""
TRIES = 3
"""A busy machine is too slow for the 30 s that Ray gives its own processes; another program may take a free port."""
START_S = 300.0
"""How long Ray may take to listen, and a node to find the head."""
LOOK_S = 2.0
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when the one that started it is gone."""
GONE = 3
"""Looks in a row at which nobody listens at the head before it is gone."""
OBJECT_STORE_BYTES = 512 * 2**20
"""Results are small and data goes through the store; by default Ray takes a third of the machine's memory."""


def main(arguments: Sequence[str]) -> int:
    """Be one node of the job until the driver has ended; the exit code."""
    prepare_environment()
    try:
        mine = Allocation.of(os.environ)
        ray = NodeRay(mine, temporary_folder(mine))
        try:
            return _told(_drive(mine, ray, arguments)) if mine.first else _serve(mine, ray)
        finally:
            ray.end()
    except StorageError as error:
        _say(str(error))
        return _told(error.code) if os.environ.get("SLURM_PROCID") == "0" else error.code


class NodeRay:
    """Ray's processes on this node. They never hear SIGTERM, which Slurm sends to every process of a step."""

    def __init__(self, mine: Allocation, temporary: Path) -> None:
        self.mine, self.temporary = mine, temporary
        self.process: subprocess.Popen[bytes] | None = None
        self.dashboard = _free_port()

    def command(self) -> list[str]:
        """The `ray start` of this node, with ports that nobody else on this machine has."""
        mine, head = self.mine, f"{self.mine.head}:{self.mine.port}"
        first = ["--head", f"--port={mine.port}", f"--ray-client-server-port={_free_port()}"]
        first += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}"]
        ports = [f"--dashboard-agent-listen-port={_free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
        share = [f"--num-cpus={mine.cpus}", f"--num-gpus={mine.gpus}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        place = [f"--node-ip-address={own_address(mine.head)}", f"--temp-dir={self.temporary}"]
        program = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        return [*program, *(first if mine.first else [f"--address={head}"]), *place, *share, *ports]

    def start(self) -> None:
        """Begin them, and return once they take part. StorageError with their last words when they do not."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with (self.temporary / "start.log").open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_apart,
            )
        deadline = time.monotonic() + START_S
        while not self._started():
            if not self.lives() or time.monotonic() > deadline:
                raise self._failed()
            time.sleep(LOOK_S / 10)

    def lives(self) -> bool:
        """Whether this node's part of Ray goes on."""
        return self.process is not None and self.process.poll() is None

    def end(self) -> None:
        """End what `start` began, and nobody else's: the session that it opened, and its folder."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _started(self) -> bool:
        """Ray says so in its log; at the head, its dashboard has to answer the driver too."""
        if "--block" not in self._said():
            return False
        return not self.mine.first or (
            _listens(self.mine.head, self.mine.port) and _listens("127.0.0.1", self.dashboard)
        )

    def _said(self) -> str:
        return (self.temporary / "start.log").read_text(errors="replace")

    def _failed(self) -> StorageError:
        words = " / ".join(line.strip() for line in self._said().splitlines()[-8:] if line.strip())
        code = self.process.poll() if self.process else None
        ended = f"`ray start` ended with {code}" if code is not None else f"it took more than {START_S:g} s"
        asked = f"start Ray on {socket.gethostname()} with {self.mine.cpus} CPUs and {self.mine.gpus} GPUs"
        return StorageError(asked, f"{ended}: {words}", "see the lines above; then submit again")


def _drive(mine: Allocation, ray: NodeRay, arguments: Sequence[str]) -> int:
    """Start the head, run the driver beside it, and say what became of it."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)  # the driver hears it by itself

    signal.signal(signal.SIGTERM, note)
    for left in reversed(range(TRIES)):
        try:
            ray.start()
            break
        except StorageError:
            ray.end()
            if not left:
                raise
    if asked:
        return RESUMABLE
    head = f"{mine.head}:{mine.port}"
    name = socket.gethostname()
    _say(f"head {name} ({head}), {_share(mine)}; dashboard: ssh -L 8265:127.0.0.1:{ray.dashboard} {name}")
    command = [sys.executable, "-m", "vitpipe.pipeline", *arguments]
    driver = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": head})
    code = driver.wait()
    ended = code == 6 or code == -signal.SIGTERM  # the latter before it could listen
    return RESUMABLE if asked and ended else 128 - code if code < 0 else code


def _told(code: int) -> int:
    """Leave the code where the job's script looks for it: `srun` would give that of a node which is ended later."""
    if path := os.environ.get("VITPIPE_CODE"):
        Path(path).write_text(f"{code}\n")
    return code


def _serve(mine: Allocation, ray: NodeRay) -> int:
    """Take part in the head's Ray until the head is gone; come back when only this node's part of it ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the driver decides
    _join(mine, ray)
    silent = 0
    while silent < GONE:
        time.sleep(LOOK_S)
        silent = 0 if _listens(mine.head, mine.port) else silent + 1
        if not silent and not ray.lives():
            _say(f"Ray ended on {socket.gethostname()}: it starts again")
            ray.end()
            _join(mine, ray)
    return 0


def _join(mine: Allocation, ray: NodeRay) -> None:
    """Start this node's part; again while the head listens, but is not ready for others. StorageError."""
    deadline = time.monotonic() + START_S
    while True:
        if _listens(mine.head, mine.port):
            try:
                ray.start()
                break
            except StorageError:
                ray.end()
                if time.monotonic() > deadline:
                    raise
        elif time.monotonic() > deadline:
            found = f"nobody listened there within {START_S:g} s"
            do = "see what the first node says above; a firewall between nodes looks the same"
            raise StorageError(f"reach the head {mine.head}:{mine.port} from {socket.gethostname()}", found, do)
        time.sleep(LOOK_S)
    _say(f"{socket.gethostname()} joined, {_share(mine)}")


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=LOOK_S):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _apart() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited by all that Ray starts
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends its Ray; else the step would last for ever


def _share(mine: Allocation) -> str:
    return f"{mine.cpus} CPUs and {mine.gpus} GPUs of its job"


def _say(line: str) -> None:
    print(f"vitpipe on Slurm: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
