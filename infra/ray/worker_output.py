"""Put what Ray's workers print into the driver's log, instead of between the lines that we print.

Ray prints workers' lines, and its own complaints about them, to the driver's standard output, where they would end up
in the middle of `--json`. There is no public door for that: the one function it prints with is replaced.
"""

import logging
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import ray._private.worker as ray_worker
import structlog

log = logging.getLogger(__name__)

_NODE = re.compile(r"\bnode=([a-z0-9/-]+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_nodes: dict[tuple[str, str], str] = {}
"""The node that a process (host, pid) last named: tracebacks and libraries' lines after it belong there too."""


def into_the_log() -> None:
    """Redirect workers' lines; call this before `ray.init(log_to_driver=True)`."""
    ray_worker.print_to_stdstream = take


def take(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    """Log a batch of lines of one process, each for the node that it is about. Ray calls this."""
    if data.get("pid") == "autoscaler":  # its whole status every five seconds, on a machine that has none
        return
    process = str(data.get("ip", "")), str(data.get("pid", ""))

    def node_of(line: str) -> str:
        if named := _NODE.search(line):
            _nodes[process] = named.group(1)
        return _nodes.get(process, "")

    for node, lines in groupby(data["lines"], key=node_of):
        with structlog.contextvars.bound_contextvars(**({"node": node} if node else {})):
            log.info("%s pid %s:\n%s", *process, "\n".join(_COLOUR.sub("", line) for line in lines))
