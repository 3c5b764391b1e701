"""A cluster of three machines on one, of which one is lost; run as a program, because a process can join one Ray."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from machines import begin

from vitpipe.infra import logs
from vitpipe.infra.errors import Stopped, VitpipeError

WAIT_S = 20.0
TWO_CPUS = {"cpus_per_task": 2, "gpus_per_task": 0, "cpus_per_worker": 2, "gpus_per_worker": 0}


def task(folder: str, item: int) -> int:
    """The first try never ends by itself."""
    mark = Path(folder, f"{item}")
    if not mark.exists():
        mark.touch()
        time.sleep(3600)
    return item


def rank_fn(folder: str, rank: Any) -> None:
    mark = Path(folder, f"rank-{rank.restart}")
    mark.touch()
    if rank.restart == 0:
        time.sleep(3600)


def elastic_rank_fn(folder: str, rank: Any) -> None:
    Path(folder, f"world-{rank.world_size}").touch()
    if rank.restart == 0:
        time.sleep(3600)


def noticing_rank_fn(folder: str, rank: Any) -> None:
    """Commits when it is told that its machine goes."""
    Path(folder, f"rank-{rank.restart}").touch()
    while rank.restart == 0:
        notice = rank.notice()
        if notice:
            Path(folder, "noticed").write_text(notice)
            raise Stopped("train", notice, "")
        time.sleep(0.2)


def main(what: str, comes_back: str, folder: str) -> None:
    logs.configure()
    machines = begin(head_cpus=1)
    from vitpipe.infra.ray.cluster import join  # with the environment that is prepared now

    large = machines.add_node(num_cpus=2)
    if what == "elastic":
        machines.add_node(num_cpus=2)
    try:
        with join("demo", machines.address, WAIT_S, {}) as joined:
            work = ThreadPoolExecutor(1).submit(do, what, folder, joined.named("node"))
            began = time.monotonic()
            end = {"notice": reclaim, "head": lose_head}.get(what, lose)
            end(machines, large, folder, comes_back == "yes")  # Ray wants this in the main thread
            found = work.result()
            marks = sorted(os.listdir(folder))
            print(json.dumps({"found": found, "seconds": time.monotonic() - began, "marks": marks}))
    finally:
        machines.shutdown()


def do(what: str, folder: str, view: Any) -> str:
    """What became of the work, in words."""
    resources = SimpleNamespace(workers=1, max_failures=2, hang_timeout_s=600, **TWO_CPUS)
    try:
        if what in ("fan", "head"):
            return str([done.value() for done in view.fan(partial(task, folder), [7], resources=resources)])
        if what == "notice":
            resources.max_failures = 0
        if what == "elastic":
            resources.workers = (1, 2)
        ranks = {"gang": rank_fn, "notice": noticing_rank_fn, "elastic": elastic_rank_fn}
        view.gang(partial(ranks[what], folder), resources=resources)
    except VitpipeError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def lose(machines: Any, large: Any, folder: str, comes_back: bool) -> None:
    """Once work has begun on the large machine, it vanishes; another comes a little later, or never."""
    while not os.listdir(folder):
        time.sleep(0.2)
    machines.remove_node(large, allow_graceful=False)
    if comes_back:
        time.sleep(3)
        machines.add_node(num_cpus=2)


def lose_head(machines: Any, large: Any, folder: str, comes_back: bool) -> None:
    """Once a task runs, nobody answers for the cluster any more."""
    while not os.listdir(folder):
        time.sleep(0.2)
    machines.head_node.kill_all_processes(check_alive=False, allow_graceful=False)


def reclaim(machines: Any, large: Any, folder: str, comes_back: bool) -> None:
    """As a cloud takes a spot machine back: a notice, another machine comes, and at the deadline the first is gone."""
    while not os.listdir(folder):
        time.sleep(0.2)
    program = Path(sys.executable).with_name("ray")
    subprocess.run(
        [program, "drain-node", "--address", machines.address, "--node-id", large.node_id,
         "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "15"],
        check=True, capture_output=True,
    )  # fmt: skip
    machines.add_node(num_cpus=2)
    time.sleep(15)
    machines.remove_node(large, allow_graceful=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
