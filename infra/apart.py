"""An embedded Ray, out of the way of signals that mean this program and everything it started.

`timeout` and a terminal signal a process group, systemd and Slurm every process of a job. Ray's own processes would end
at once, and the ranks with them, while we want them to commit. They still end with this process, whatever ends it.
"""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import services


@contextmanager
def apart() -> Iterator[None]:
    """Around `ray.init`: what it starts has a process group of its own and never hears SIGTERM, nor do its workers.

    Ray does the same for SIGINT, and has no public door for either: the one class it starts them with is replaced.
    """
    before = services.ConsolePopen
    services.ConsolePopen = _Apart
    try:
        yield
    finally:
        services.ConsolePopen = before


class _Apart(subprocess.Popen):  # type: ignore[type-arg]
    """A process that is ended by SIGKILL alone; its workers see that it is gone and leave."""

    def __init__(self, *args: Any, preexec_fn: Callable[[], None], **options: Any) -> None:
        def prepare() -> None:
            preexec_fn()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited by what it starts

        options |= {"preexec_fn": prepare, "process_group": 0}
        super().__init__(*args, **options)

    def terminate(self) -> None:
        self.kill()
