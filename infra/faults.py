"""Named places where a test may have a process die, fail or stand still. Without `VITPIPE_TEST_FAULTS` they do nothing.

The command line refuses to run with it. Its value is a JSON list of `{point, step, rank, do, once}`: `do` is kill,
raise or stall, and `once` a path that the first process to get there creates, so that a restarted one passes.
"""

import json
import os
import signal
import time
from pathlib import Path

from vitpipe.infra.errors import StorageError, UsageError

SETTING = "VITPIPE_TEST_FAULTS"


def reach(point: str, step: int, rank: int) -> None:
    """Do what a test asked for here."""
    asked = os.environ.get(SETTING)
    for fault in json.loads(asked) if asked else ():
        if (fault["point"], fault["step"], fault["rank"]) == (point, step, rank) and _first(fault["once"]):
            _do(fault["do"], point)


def refuse() -> None:
    """Raise UsageError where that variable is set: nobody runs with faults by mistake."""
    if os.environ.get(SETTING):
        raise UsageError(f"run with {SETTING}", "it makes processes die for tests", f"unset {SETTING}")


def _first(mark: str) -> bool:
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _do(what: str, point: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise StorageError(f"pass {point}", "a test asked to fail here", "")
    time.sleep(3600)
