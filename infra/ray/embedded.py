"""Keep an embedded Ray out of reach of signals that are sent to this program and everything it started.

`timeout` and a terminal signal a process group, systemd and Slurm every process of a job. Ray's own processes would end
at once, and the ranks with them, while we want them to commit. They still end with this process, whatever ends it.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray._private import services

_DASHBOARD = "dashboard/dashboard.py"


@contextmanager
def apart(temporary: Path) -> Iterator[None]:
    """Wrap `ray.init`: what it starts has a process group of its own and never hears SIGTERM, nor do its workers.

    Ray does the same for SIGINT, and has no public door for either: the one class that starts them is replaced.
    `temporary` is for folders of Python's multiprocessing that Ray's dashboard leaves behind when it is killed.
    """
    before = services.ConsolePopen
    services.ConsolePopen = partial(_Apart, temporary)
    try:
        yield
    finally:
        services.ConsolePopen = before


class _Apart(subprocess.Popen):  # type: ignore[type-arg]
    """A process that is ended by SIGKILL alone; its workers see that it is gone and leave."""

    def __init__(
        self, temporary: Path, command: Sequence[str], *, preexec_fn: Callable[[], None], **options: Any
    ) -> None:
        def prepare() -> None:
            preexec_fn()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited by what it starts

        if any(str(part).endswith(_DASHBOARD) for part in command):
            options["env"] = {**(options.get("env") or os.environ), "TMPDIR": str(temporary)}
        super().__init__(command, preexec_fn=prepare, process_group=0, **options)

    def terminate(self) -> None:
        self.kill()
