"""Machines of a cluster on this one, as a program: it obeys a line at a time, because a process can hold one Ray.

`add CPUS` · `lose N` (the N-th added) · `lose-head`; each is answered by `ok`. It ends with its standard input.
"""

import socket
import sys
from typing import Any

from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray import connect as cluster


def main() -> None:
    machines = begin(head_cpus=0)
    added = []
    try:
        print(machines.address, flush=True)
        for line in sys.stdin:
            match line.split():
                case ["add", cpus]:
                    added.append(machines.add_node(num_cpus=int(cpus)))
                case ["lose", number]:
                    machines.remove_node(added[int(number)], allow_graceful=False)
                case ["lose-head"]:
                    machines.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
            print("ok", flush=True)
    finally:
        machines.shutdown()


def begin(head_cpus: int) -> Any:
    """A cluster of its head alone, with a dashboard on a port of its own."""
    cluster.prepare_environment()
    ray_auth.ensure_token()
    from ray.cluster_utils import Cluster

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}
    return Cluster(initialize_head=True, head_node_args={"num_cpus": head_cpus, **dashboard})


if __name__ == "__main__":
    main()
