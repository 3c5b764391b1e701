"""Fans and gangs on a real Ray: results, losses, errors, and machines that are not there."""

import json
import logging
import os
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitpipe.infra import metrics
from vitpipe.infra.errors import IntegrityError, StageError, Stopped, StorageError, UsageError, VitpipeError
from vitpipe.infra.logs import redact
from vitpipe.infra.metrics import NodeMetrics
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray import counting, on_worker

pytestmark = pytest.mark.ray

TASK = SimpleNamespace(cpus_per_task=1, gpus_per_task=None, max_failures=1)
PAIR = SimpleNamespace(workers=2, cpus_per_worker=1, gpus_per_worker=None, max_failures=2, hang_timeout_s=600)


@dataclass(frozen=True)
class Told:
    """Events of a test, in a file: they come from other processes too."""

    path: Path

    def emit(self, kind: str, text: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{kind} {text}\n")

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


@dataclass
class StopAfter:
    """A fence that lets `polls` polls pass."""

    polls: int
    asked: int = field(default=0)

    def stopping(self) -> str | None:
        self.asked += 1
        return "SIGTERM" if self.asked > self.polls else None


def square(item):
    return item * item


def fail(item):
    if item == "integrity":
        raise IntegrityError("read shard 3", "its digest differs", "restore it")
    if item == "memory":
        raise MemoryError("cannot allocate 17 GB")
    if item == "value":
        raise ValueError("a plain bug")
    return item


def die_until(tries, folder, item):
    """SIGKILL itself until it has been tried `tries` times."""
    mark = Path(folder, f"{item}-tries")
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
    if len(mark.read_text()) < tries:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def sleep_for_ever(item):
    time.sleep(600)


def test_fan_gives_every_result_once(ray_session) -> None:
    began = time.monotonic()
    done = list(ray_session.named("squares").fan(square, range(8), resources=TASK))
    assert {one.item: one.value() for one in done} == {item: item * item for item in range(8)}
    cores = ray_session.queue.machines().values()
    most = sum(one["CPU"] for one in cores) * (time.monotonic() - began)
    assert 0 < ray_session.held("squares")["CPU"] <= most


def test_one_failure_stops_no_other_and_errors_keep_their_class(ray_session) -> None:
    items = ["fine", "integrity", "memory", "value"]
    done = {one.item: one for one in ray_session.named("failing").fan(fail, items, resources=TASK)}
    assert done["fine"].value() == "fine"
    assert type(done["integrity"].error) is IntegrityError
    assert done["integrity"].error.found == "its digest differs"
    assert type(done["memory"].error) is StageError and "out of memory" in str(done["memory"].error)
    assert type(done["value"].error) is ValueError
    assert "in fail" in done["value"].error.__notes__[0], "the remote traceback comes with it"


def test_a_lost_task_runs_again(ray_session, tmp_path: Path) -> None:
    told = Told(tmp_path / "events")
    fan = ray_session.named("dying", events=told).fan
    done = list(fan(partial(die_until, 2, tmp_path), ["a", "b"], resources=TASK))
    assert sorted(one.value() for one in done) == ["a", "b"]
    assert [line.split()[0] for line in told.lines()] == ["rank_lost"] * 2
    assert any("dying/a was lost (1 of 2)" in line for line in told.lines())


def test_a_task_lost_too_often_fails(ray_session, tmp_path: Path) -> None:
    (done,) = ray_session.named("dying").fan(partial(die_until, 9, tmp_path), ["a"], resources=TASK)
    with pytest.raises(StageError, match=r"run task dying/a.*lost 2 times"):
        done.value()


def test_a_fan_that_fits_nowhere_says_what_is_missing(ray_session) -> None:
    wanted = SimpleNamespace(cpus_per_task=1, gpus_per_task=1, max_failures=1)
    with pytest.raises(StageError, match=r"1 GPU.*asked for, no machine has a GPU"):
        next(ray_session.named("large").fan(square, [1], resources=wanted))


def test_a_fan_ends_when_asked_to(ray_session) -> None:
    with pytest.raises(Stopped, match="SIGTERM"):
        list(ray_session.named("long", fence=StopAfter(1)).fan(sleep_for_ever, [1, 2, 3], resources=TASK))
    done = list(ray_session.named("next").fan(square, [3], resources=TASK))
    assert done[0].value() == 9, "the CPUs are free again"


def speak(item):
    logging.getLogger("vitpipe.stages.test").info("read item %s", item)
    print("a plain print")


def test_what_workers_say_goes_to_the_log_not_to_stdout(ray_session, caplog, capfd) -> None:
    caplog.set_level("INFO", "vitpipe.infra.ray.worker_output")
    list(ray_session.named("speaking").fan(speak, ["seventeen"], resources=TASK))
    for _ in range(100):
        if "a plain print" in caplog.text and "read item seventeen" in caplog.text:
            break
        time.sleep(0.1)
    assert "read item seventeen" in caplog.text and "node=speaking" in caplog.text
    assert "a plain print" in caplog.text
    assert "plain print" not in capfd.readouterr().out


def test_the_dashboard_knows_whose_an_embedded_ray_is(ray_session) -> None:
    asked = urllib.request.Request(
        f"{ray_session.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {ray_auth.token()}"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert {job["metadata"].get("job_name") for job in json.load(answer)} == {"tests"}


def measure(item):
    NodeMetrics("tests", "measured").set("loss", 2.5, rank="0")
    NodeMetrics("tests", "measured").inc("quarantined_samples_total", 3.0)
    NodeMetrics("tests", "measured").inc("quarantined_samples_total", 0.0)  # which Ray's own counters refuse


def test_numbers_of_workers_reach_the_driver_and_rays_own_metrics(ray_session) -> None:
    import ray

    before = metrics.use(heard := metrics.Pending())
    try:
        with ray_session.counting():
            list(ray_session.named("measured").fan(measure, [1, 2], resources=TASK))
            list(ray_session.named("measured").fan(measure_and_die, [3], resources=TASK))
    finally:
        metrics.use(before)
    labels, batch = (("run", "tests"), ("node", "measured")), heard.take()
    assert batch.gauges["loss", (*labels, ("rank", "0"))] == 2.5
    assert batch.growth["quarantined_samples_total", labels] == 6.0 + 2 * 3.0, "what a lost task had sent is kept"
    assert batch.growth["restarts_total", labels] == 2
    assert batch.growth["storage_retries_total", labels] == 0, "it is there before it grows"
    list(ray_session.named("measured").fan(measure, [4, 5], resources=TASK))  # of a lost process Ray knows nothing
    (machine,) = ray.nodes()
    url = f"http://{machine['NodeManagerAddress']}:{machine['MetricsExportPort']}/metrics"
    for _ in range(60):
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_vitpipe_")]
        if {"ray_vitpipe_loss", "ray_vitpipe_quarantined_samples_total"} <= {line.split("{")[0] for line in lines}:
            break
        time.sleep(1)
    loss = next(line for line in lines if line.startswith("ray_vitpipe_loss{"))
    assert 'run="tests"' in loss and 'node="measured"' in loss and 'rank="0"' in loss and loss.endswith(" 2.5")
    bad = [line for line in lines if line.startswith("ray_vitpipe_quarantined_samples_total{")]
    assert {float(line.split()[-1]) for line in bad} <= {3.0, 6.0} and bad, "of each process by itself"


def measure_and_die(item):
    measure(item)
    (sending,) = on_worker._sending
    while sending.pending._batch.growth:  # its thread sends it every two seconds, later on a busy machine
        time.sleep(0.1)
    time.sleep(2 * counting.EVERY_S)  # on its way
    os.kill(os.getpid(), signal.SIGKILL)


def all_reduce(folder, rank):
    import torch
    import torch.distributed as dist

    total = torch.tensor([float(rank.rank + 1)])
    dist.all_reduce(total)
    facts = [
        rank.world_size,
        rank.restart,
        rank.device,
        total.item(),
        torch.get_num_threads(),
        os.environ["LOCAL_SIZE"],
    ]
    Path(folder, f"rank-{rank.rank}-{rank.restart}").write_text(repr(facts))


def lose_one(folder, rank):
    import torch.distributed as dist

    all_reduce(folder, rank)
    if rank.restart == 0 and rank.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def one_refuses(error, folder, rank):
    import torch.distributed as dist

    Path(folder, f"rank-{rank.rank}-{rank.restart}").touch()
    if rank.rank == 1:
        raise error
    dist.barrier()


def mark_gang(folder, rank):
    Path(folder, "gang").write_text(str(rank.since))


def stop_unevenly(folder, rank):
    """Rank 1 leaves at once, rank 0 has something to commit first."""
    if rank.rank == 0:
        time.sleep(4)
        Path(folder, "committed").touch()
    raise Stopped("train", "asked to end", "run again")


def test_a_lost_rank_restarts_the_gang_from_the_top(ray_session, tmp_path: Path) -> None:
    told = Told(tmp_path / "events")
    ray_session.named("backbone", events=told).gang(partial(lose_one, tmp_path), resources=PAIR)
    for rank in (0, 1):
        for restart in (0, 1):
            assert Path(tmp_path, f"rank-{rank}-{restart}").read_text() == repr([2, restart, "cpu", 3.0, 1, "2"])
    assert any(line.startswith("rank_lost") and "rank 1" in line and "1 of 3" in line for line in told.lines())


def late_or_early(folder, item):
    """The first two run until a gang waits behind them; each says whether the gang had run when it began."""
    found = Path(folder, "gang").exists()
    while item < 2 and not Path(folder, "waits").exists():
        time.sleep(0.05)
    return found


def test_no_task_begins_while_a_gang_waits_for_its_machines(ray_session, tmp_path: Path) -> None:
    """Six tasks on two cores: those that run when the gang comes end, the others begin after its ranks have ended."""
    cpus = sum(one["CPU"] for one in ray_session.queue.machines().values())
    task, both = (
        SimpleNamespace(**{**vars(TASK), "cpus_per_task": cpus / 2}),
        SimpleNamespace(**{**vars(PAIR), "cpus_per_worker": int(cpus / 2)}),
    )
    view = ray_session.named("many")
    with ThreadPoolExecutor() as pool:
        lengths = {"seconds": lambda item: float(10 - item)}
        fan = view.fan(partial(late_or_early, str(tmp_path)), range(6), resources=task, **lengths)
        tasks = pool.submit(lambda: {done.item: done.result for done in fan})
        while len(ray_session.queue._out) != 2:
            time.sleep(0.05)
        ranks = pool.submit(ray_session.named("first").gang, partial(mark_gang, str(tmp_path)), resources=both)
        while len(ray_session.queue._waiting) < 5:
            time.sleep(0.05)
        waited_until = time.time()
        Path(tmp_path, "waits").touch()
        ranks.result()
        assert waited_until <= float(Path(tmp_path, "gang").read_text()) <= time.time()
        assert tasks.result() == {item: item >= 2 for item in range(6)}


def test_an_error_of_ours_ends_the_gang_as_it_is(ray_session, tmp_path: Path) -> None:
    error = IntegrityError("read step-10", "a flipped bit", "restore it")
    with pytest.raises(IntegrityError, match="a flipped bit") as caught:
        ray_session.named("torn").gang(partial(one_refuses, error, tmp_path), resources=PAIR)
    assert "one_refuses" in caught.value.__notes__[0]
    assert {path.name for path in tmp_path.glob("rank-*")} == {"rank-0-0", "rank-1-0"}, "not retried"


def test_the_same_bug_twice_is_not_tried_a_third_time(ray_session, tmp_path: Path) -> None:
    error = ValueError("always")
    error.add_note("in step 7")
    with pytest.raises(StageError, match=r"he same failure twice: ValueError: always \(in step 7\)"):
        ray_session.named("bug").gang(partial(one_refuses, error, tmp_path), resources=PAIR)
    assert {path.name for path in tmp_path.glob("rank-1-*")} == {"rank-1-0", "rank-1-1"}


def test_a_gang_that_stops_leaves_together(ray_session, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        ray_session.named("stopping").gang(partial(stop_unevenly, tmp_path), resources=PAIR)
    assert (tmp_path / "committed").exists()


def test_a_gang_that_fits_nowhere_says_what_is_missing(ray_session) -> None:
    wanted = SimpleNamespace(workers=[2, 4], cpus_per_worker=1, gpus_per_worker=1, max_failures=0, hang_timeout_s=600)
    with pytest.raises(StageError, match=r"run 2 to 4 ranks of large.*2 x \(1 CPU, 1 GPU\) asked for"):
        ray_session.named("large").gang(all_reduce, resources=wanted)


def until_there(path):
    while not Path(path).exists():
        time.sleep(0.05)


def test_who_waits_for_room_asks_machines_and_waits_for_none_that_is_busy(ray_session, tmp_path: Path) -> None:
    import ray

    from vitpipe.infra.ray import gang_places

    gang_places._stir()
    cpus = sum(one["CPU"] for one in ray_session.queue.machines().values())
    busy = ray.remote(until_there).options(num_cpus=cpus).remote(str(tmp_path / "end"))
    gang_places._stir()
    (tmp_path / "end").touch()
    ray.get(busy)


def test_nothing_is_left_in_the_home_folder(ray_session) -> None:
    assert not Path("~/ray_results").expanduser().exists()


def test_the_dashboard_lives_and_wants_the_token(ray_session) -> None:
    def get(path: str, **headers: str):
        request = urllib.request.Request(ray_session.dashboard_url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    assert ray_session.dashboard_url.startswith("http://127.0.0.1:")
    ray_auth.refuse_open(ray_session.dashboard_url)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get("/api/jobs/")
    bearer = {"Authorization": f"Bearer {ray_auth.token()}"}
    assert get("/api/jobs/", **bearer)
    assert get("/logical/actors", **bearer)["result"]


def test_the_token_is_private(ray_session) -> None:
    if not os.environ.get("RAY_AUTH_TOKEN"):
        assert ray_auth.token_path().stat().st_mode & 0o077 == 0
    assert ray_auth.token() not in redact(f"token is {ray_auth.token()}")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001"])
def test_an_address_that_does_not_answer(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitpipe.infra.ray import cluster as ray_cluster

    monkeypatch.setattr(ray_auth, "PROBE_S", 1.0)
    with pytest.raises(VitpipeError, match=address) as caught:
        ray_cluster.join("demo", address, 1.0, {})
    assert type(caught.value) is (UsageError if "://" in address else StorageError)
