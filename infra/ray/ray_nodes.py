"""The nodes of a connected Ray, to be asked by `infra.ray.cluster_survey`: an actor on each."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra.ray.node_probe import NodeProbe

JOIN_S = 120.0


class RayNodes:
    """Satisfies `infra.ray.cluster_survey.Nodes`. Its actors end with this process."""

    def __init__(self, expected: int = 1) -> None:
        """Look who is there, and wait a while for as many as are expected."""
        deadline = time.monotonic() + JOIN_S
        while len(alive := [node for node in ray.nodes() if node["Alive"]]) < expected and time.monotonic() < deadline:
            time.sleep(1)
        hosts = Counter(node["NodeManagerHostname"] for node in alive)
        self._nodes = {
            _name(node, hosts): node for node in sorted(alive, key=lambda node: str(node["NodeManagerHostname"]))
        }
        probe = ray.remote(NodeProbe)
        # no GPU is reserved, so that a busy one hinders nobody; Ray hides none from what asks for none
        self._actors = {
            name: probe.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote()
            for name, node in self._nodes.items()
        }

    def names(self) -> Sequence[str]:
        """Name all nodes by their hosts."""
        return list(self._nodes)

    def address(self, node: str) -> str:
        """Name the address that Ray reaches a node at."""
        return str(self._nodes[node]["NodeManagerAddress"])

    def ask(self, question: str, arguments: Mapping[str, tuple[Any, ...]], seconds: float) -> dict[str, Any]:
        """Ask at the same time; who does not answer in time is asked no more, and its process ended."""
        asked = {name: getattr(self._actors[name], question).remote(*given) for name, given in arguments.items()}
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds) if asked else ([], [])
        answers = {}
        for name, answer in asked.items():
            if answer not in ready:
                ray.kill(self._actors[name])
                continue
            try:
                answers[name] = ray.get(answer)
            except RayTaskError as error:
                answers[name] = error.cause if isinstance(error.cause, Exception) else error
            except Exception as error:  # its node is gone
                answers[name] = error
        return answers


def _name(node: Mapping[str, Any], hosts: Mapping[str, int]) -> str:
    host = str(node["NodeManagerHostname"])
    return host if hosts[host] == 1 else f"{host} ({node['NodeManagerAddress']}, {str(node['NodeID'])[:6]})"
