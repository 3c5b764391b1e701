"""Ranks that are lost before they train, ranks of a driver whose run was taken over, and what a gang leaves behind."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError
from test_cluster import Told

from vitpipe.infra import metrics
from vitpipe.infra.errors import Lost
from vitpipe.infra.lease_state import Holder
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray import fanout, on_worker
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.one_queue import Ticket
from vitpipe.infra.work import Job

PAIR = SimpleNamespace(workers=2, cpus_per_worker=1, gpus_per_worker=None, max_failures=2, hang_timeout_s=600)
ONE = SimpleNamespace(**{**vars(PAIR), "workers": 1})


@dataclass(frozen=True)
class DiesUnpacked:
    """Kills the first rank that it comes to, before that one has begun with anything."""

    folder: Path

    def __reduce__(self) -> tuple[Callable[[Path], "DiesUnpacked"], tuple[Path]]:
        return unpack, (self.folder,)


def unpack(folder: Path) -> DiesUnpacked:
    die_once(folder / "died")
    return DiesUnpacked(folder)


def die_once(mark: Path) -> None:
    if "RANK" in os.environ and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def begin_alone(first: DiesUnpacked, rank) -> None:
    """No rank of before lives; in the second start rank 0 dies at once, the third ends."""
    import torch.distributed as dist

    folder = first.folder
    living = [path.name for path in folder.glob("pid-*") if Path("/proc", path.read_text()).exists()]
    assert [name for name in living if not name.endswith(str(rank.restart))] == [], "ranks of before live"
    (folder / f"pid-{rank.rank}-{rank.restart}").write_text(str(os.getpid()))
    dist.barrier()
    if rank.restart == 1 and rank.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


class Counted:
    """What is counted in this process."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str], float] = {}

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        return None

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        key = name, labels["node"]
        self.totals[key] = self.totals.get(key, 0.0) + amount


@pytest.fixture
def counted():
    found = Counted()
    before = metrics.use(found)
    yield found.totals
    metrics.use(before)


@pytest.mark.ray
def test_ranks_lost_at_their_start_and_later_are_one_count(ray_session, counted, tmp_path: Path) -> None:
    """Each start has a number of its own."""
    from ray.util.placement_group import placement_group_table

    told = Told(tmp_path / "events")
    with ray_session.counting():
        ray_session.named("begun", events=told).gang(partial(begin_alone, DiesUnpacked(tmp_path)), resources=PAIR)
    begun = {path.name for path in tmp_path.glob("pid-*")}
    assert begun - {"pid-0-0", "pid-1-0"} == {f"pid-{rank}-{k}" for rank in (0, 1) for k in (1, 2)}
    assert len(begun) <= 5, "one of the first start never began"
    first, second = told.lines()
    assert first.startswith("rank_lost rank ") and "ActorDiedError: its worker process has died" in first
    assert second.startswith("rank_lost rank 0 ")
    assert first.endswith("(failure 1 of 3)") and second.endswith("(failure 2 of 3)")
    assert counted["restarts_total", "begun"] == 2, "in this process, which exports"
    states = {one["state"] for one in placement_group_table().values() if one["name"].startswith("tests/begun ")}
    assert states == {"REMOVED"}


def die_always(rank) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.drill
def test_losses_are_spent(ray_session) -> None:
    with pytest.raises(Lost, match=r"(?i)lost 2 times, last: rank 0 .*its worker process has died"):
        ray_session.named("spent").gang(die_always, resources=SimpleNamespace(**{**vars(ONE), "max_failures": 1}))


def wait_for_mark(folder: Path, rank) -> None:
    Path(folder, f"pid-{os.getpid()}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.05)


@pytest.mark.ray
def test_names_read_like_the_yaml_and_those_of_another_driver_are_no_hindrance(ray_session, tmp_path: Path) -> None:
    """Two gangs of one name at once, as when a run was taken over from a driver that hangs."""
    token = {"Authorization": f"Bearer {ray_auth.token()}"}

    def shown() -> list[tuple[str, str, str]]:
        request = urllib.request.Request(ray_session.dashboard_url + "/logical/actors", headers=token)
        with urllib.request.urlopen(request, timeout=30) as answer:
            actors = json.load(answer)["data"]["actors"].values()
        return [
            (one["name"], one["actorClass"], one["reprName"]) for one in actors
            if one["state"] == "ALIVE" and "named" in one["name"]
        ]  # fmt: skip

    with ThreadPoolExecutor() as pool:
        view = ray_session.named("named/it-s-a-name")
        both = [pool.submit(view.gang, partial(wait_for_mark, tmp_path), resources=ONE) for _ in range(2)]
        try:
            for _ in range(600):
                if len(list(tmp_path.glob("pid-*"))) == 2 and len(shown()) == 2:
                    break
                time.sleep(0.1)
            found = shown()
        finally:
            Path(tmp_path, "go").touch()
        for one in both:
            one.result()
    name = "tests/named/it-s-a-name[0]"
    assert found == [(name, "named/it-s-a-name", name)] * 2


def test_a_process_is_ended_and_a_stranger_with_its_number_is_not() -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        stranger = replace(Holder.me(), pid=child.pid)  # began when we did: not this one
        on_worker.end(stranger)
        assert child.poll() is None
        began = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        on_worker.end(replace(stranger, start_time=began))
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()


CROWDED = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: c5) \
was 11.77GB used / 23.54GB limit (0.500073)
OOM kill reason: Memory usage 12567658496B exceeded threshold of 12560617472B (49.7% of 25276502016B limit)
Object store memory usage: [- objects spillable: 1
]
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
5240\t5.88\tpython hog.py --much
4190\t0.38\tray::RayTrainWorker
"""
"""As Ray 2.60 said it when a neighbour filled the memory."""

DEAD = """The actor died unexpectedly before finishing this task.
\tclass_name: backbone
\tname: tiny/backbone[1]
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: """
NODE = "The actor died unexpectedly.\n\tclass_name: backbone\nThe actor is dead because its node has died."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OutOfMemoryError(CROWDED), "out of memory on 10.0.0.7 (11.77 of 23.54 GB used), ended by Ray's memory "
                                    "monitor; most of it by process 5240, 5.88 GB: python hog.py --much; "
                                    "process 4190, 0.38 GB: ray::RayTrainWorker"),
        (OutOfMemoryError("low on memory"), "out of memory: low on memory"),
        (ValueError("\n  a bug\nmore"), "ValueError: a bug"),
        (ValueError(), "ValueError"),
        (RayActorError(error_msg=DEAD), "RayActorError: its worker process has died: Worker unexpectedly exits with a "
                               "connection error code 2"),
        (RayActorError(error_msg=NODE), "RayActorError: its node has died"),
    ],
)  # fmt: skip
def test_a_death_in_words(error: Exception, words: str) -> None:
    assert in_words(error) == words


def test_a_task_that_the_memory_monitor_ended_is_counted_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(reference: object) -> None:
        raise OutOfMemoryError(CROWDED)

    monkeypatch.setattr(fanout.ray, "get", crowded)
    told, ticket = Told(tmp_path / "events"), Ticket(7, {}, None, lambda ticket: None)
    job = Job("run", "shards", events=told)
    assert fanout._outcome("reference", ticket, job, 1, "seven") is None, "it runs again"
    done = fanout._outcome("reference", ticket, job, 1, "seven")
    assert done is not None and isinstance(done.error, Lost) and "lost 2 times" in str(done.error)
    first, second = told.lines()
    assert "task shards/seven was lost (1 of 2): out of memory on 10.0.0.7" in first and "(2 of 2)" in second
