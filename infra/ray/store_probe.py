"""Run as a job by `infra.ray.jobs`: does every node of this cluster see the store that the submitter means?"""

import sys

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.storage.opening import open_store


def look(uri: str, nonce: str, node: str) -> str:
    """On one node, read what the submitter wrote and leave an answer; return what is wrong, or an empty text."""
    try:
        store = open_store(uri)
        if store.read(f".probe-{nonce}/asked") != nonce.encode():
            return "it holds something else"
        store.create(f".probe-{nonce}/{node}", nonce.encode())
    except VitpipeError as error:
        return str(error)
    return ""


def main(uri: str, nonce: str) -> int:
    """Ask every node; print and count those that do not see the store."""
    ray.init(address="auto", log_to_driver=False)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = ray.remote(num_cpus=0, max_retries=1)(look)
    answers = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            uri, nonce, node["NodeID"]
        )
        for node in nodes
    ]
    blind = 0
    for node, wrong in zip(nodes, ray.get(answers), strict=True):
        if wrong:
            blind += 1
            print(f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) does not see it: {wrong}")
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
