"""What the machines of a Ray cluster could hold if they were idle.

Work that must wait is Ray's business; work that can never fit is ours.
"""

from collections.abc import Mapping

import ray

from vitpipe.infra.ray.head import ask_head
from vitpipe.infra.ray.machine import Asked, bundles_in
from vitpipe.infra.ray.patience import Patience
from vitpipe.infra.ray.reasons import lack
from vitpipe.infra.work import cores_beside_gpus

Bundle = Mapping[str, float]
"""What one task or rank asks for, as Ray writes it: `{"CPU": 4, "GPU": 1}`."""

_SHOWN = ("CPU", "GPU", "memory")


def machines() -> dict[str, dict[str, float]]:
    """List what each living node has, by Ray's id of it. Lost when the cluster is gone."""
    nodes = ask_head("list the machines of the cluster", ray.nodes)
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def cores_beside(gpus: float) -> int:
    """Find a GPU rank's share of its machine's cores, the least of all machines; 1 for a rank without GPUs."""
    there = [one for one in machines().values() if one.get("GPU")] if gpus else []
    return min((cores_beside_gpus(one.get("CPU", 0), one["GPU"], gpus) for one in there), default=1)


def room(bundle: Bundle) -> int:
    """Count how many of `bundle` would fit on the living nodes if those were idle; none straddles two nodes."""
    return sum(bundles_in(_asked(bundle), sizes) for sizes in machines().values())


def missing(bundle: Bundle, count: int) -> str | None:
    """Say what the cluster lacks to hold `count` of `bundle` at once; None when it lacks nothing."""
    there, asked = machines(), _asked(bundle)
    lacks = lack(asked, count, there)
    if not lacks:
        return None
    total = {
        name: sum(one.get(name, 0.0) for one in there.values()) for name in _SHOWN if name in bundle or name == "CPU"
    }
    return f"{count} x ({_words(bundle)}) asked for, {lacks}: {len(there)} nodes with {_words(total)} in all"


def patience(bundle: Bundle, count: int, wait_s: float, asked: str) -> Patience:
    """Make what tolerates for `wait_s` that the cluster is too small for so many bundles at once."""
    return Patience(lambda: missing(bundle, count), wait_s, asked)


def _asked(bundle: Bundle) -> Asked:
    return tuple((name, amount) for name, amount in bundle.items() if amount > 0)


def _words(bundle: Bundle) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount > 0) or "nothing"
