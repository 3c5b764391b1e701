"""What attempts held of the cluster before a record says it: told, added up, and read for the board."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inprocess import Unranked, make_context
from tiny_stages import HOOKS, tiny_spec, tiny_ways

from vitpipe.infra.errors import LeaseLost, StageError, StorageError
from vitpipe.infra.events import Event
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli.board.costs import Try, so_far, tries
from vitpipe.pipeline.drive.held_teller import telling_held
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.store.consumption import Consumption
from vitpipe.pipeline.store.held import NOTHING, PATH, HeldReader, HeldSoFar, held_before, held_seconds
from vitpipe.stages.contract import Out
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.record import records_in

NEVER = 1e6


def attempt(tmp_path: Path, name: str, *earlier: str) -> Out:
    return make_context(tmp_path, "net", None, attempt=name, earlier=earlier).out


def failed(out: Out, seconds: float, error: BaseException | None = None) -> None:
    """An attempt that held four cores for so many seconds, two of them beside a GPU, and then failed."""
    with (
        pytest.raises(BaseException, match="it ends"),
        telling_held(out, "f", lambda: {"CPU": 4 * seconds, "GPU": seconds}, NEVER),
    ):
        raise error or StageError("train", "it ends", "run again")


def test_a_record_counts_what_all_attempts_held_that_it_goes_on_from(tmp_path: Path) -> None:
    """The newest speaks for those before it; a gang's restarts are their driver's, and one that fell silent is none."""
    failed(attempt(tmp_path, "a1"), 10.0)
    failed(attempt(tmp_path, "a2", "a1"), 5.0)
    node = attempt(tmp_path, "a3", "a2", "a1").node
    before = held_before(node, ("a3", "a2.4", "a2", "a1"))
    assert before == {"core_seconds": 60, "gpu_seconds": 15}
    assert held_seconds({"CPU": 1.5}, before) == {"core_seconds": 61.5, "gpu_seconds": 15}
    assert held_seconds({}, before) == before and held_seconds({"CPU": 2.0}) == {"core_seconds": 2, "gpu_seconds": 0}
    assert held_seconds({}) == {} == held_before(node, ()) == held_before(node, ("a9",)), "nothing was handed out"
    node.write(f"a2/{PATH}", b"damaged")
    assert held_before(node, ("a2", "a1")) == {"core_seconds": 40, "gpu_seconds": 10}


def test_it_is_told_while_an_attempt_runs_and_not_of_one_that_commits(tmp_path: Path) -> None:
    out = attempt(tmp_path, "a1")
    with telling_held(out, "f", lambda: {"CPU": 1.0}, NEVER):
        pass
    assert out.node.size(f"a1/{PATH}") is None
    with telling_held(out, dict, 0.01):
        time.sleep(0.1)
    assert out.node.size(f"a1/{PATH}") is None, "nothing was handed out"
    with telling_held(out, "f", lambda: {"CPU": 1.0}, 0.01):
        until = time.monotonic() + 60
        while out.node.size(f"a1/{PATH}") is None and time.monotonic() < until:
            time.sleep(0.01)
    assert held_before(out.node, ("a1",)) == {"core_seconds": 1, "gpu_seconds": 0}


@pytest.mark.parametrize("error", [LeaseLost, StorageError])
def test_a_store_that_is_lost_or_anothers_is_not_asked_again(
    tmp_path: Path, error: Callable[..., BaseException]
) -> None:
    out = attempt(tmp_path, "a1")
    failed(out, 5.0, error("write", "it ends", "run again"))
    assert out.node.size(f"a1/{PATH}") is None


def test_a_store_that_refuses_costs_the_account_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = attempt(tmp_path, "a1")

    def refuse(*_: Any) -> None:
        raise StorageError("write", "full", "free space")

    monkeypatch.setattr(LocalStore, "write", refuse)
    failed(out, 5.0)
    monkeypatch.setattr(LocalStore, "read", refuse)
    assert held_before(out.node, ("a1",)) == {}


def test_a_board_reads_again_what_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(attempt(tmp_path, "a1"), 10.0)
    failed(attempt(tmp_path, "a2"), 20.0)
    reader, asked = HeldReader(open_store(f"file://{tmp_path}/store/test")), []
    read = LocalStore.read

    def noted(self: LocalStore, path: str, *more: Any) -> bytes:
        asked.append(path)
        return read(self, path, *more)

    monkeypatch.setattr(LocalStore, "read", noted)
    wanted = {("net", 1): False, ("net", 2): True, ("net", 3): False}
    for times in (1, 2):
        found = reader.read(wanted)
        assert (
            found["net", 2] == HeldSoFar({"core_seconds": 80, "gpu_seconds": 20}, {}, "f")
            and found["net", 3] is NOTHING
        )
        assert [asked.count(f"a{fence}/{PATH}") for fence in (1, 2, 3)] == [1, times, 1]


def event(node: str, fence: int, kind: str, second: int) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    return Event(name=f"{fence}-{second}", time=at.isoformat(), fence=fence, node=node, kind=kind, text="")


def test_the_cost_so_far_has_what_failed_and_what_runs() -> None:
    """A first driver fails after a minute, a second one runs; other nodes are committed, or of an older YAML."""
    events = [event("net", 1, "started", 0), event("net", 1, "failed", 60), event("gone", 1, "started", 0)]
    events += [event("net", 2, "resumed", 100), event("made", 2, "started", 100), event("made", 2, "committed", 130)]
    first, gone, second = tries(events, {"net"})
    assert (first, gone) == (Try("net", 1, 60.0, False), Try("gone", 1, 0.0, False)) and second.runs
    graph: Any = SimpleNamespace(nodes={"net": SimpleNamespace(resources=PretrainResources(workers=8))})
    ran = Try("net", 2, 100.0, True)
    hour = HeldSoFar({"core_seconds": 7200.0, "gpu_seconds": 3600.0}, {}, "f")
    found = so_far(graph, {}, [first, gone, ran], {("net", 2): hour}, 3.0)
    assert found == Consumption(160, 8 * 60 / 3600 + 2, 1, 3.0), "the first left no word, and asked for no GPU"


@pytest.mark.parametrize(("fingerprint", "gpu_hours"), [("f", 1), ("of another recipe", 2)])
def test_a_record_has_what_attempts_of_its_own_recipe_held(fingerprint: str, gpu_hours: float) -> None:
    metrics = {"core_seconds": 7200.0, "gpu_seconds": 3600.0}
    record = SimpleNamespace(fingerprint="f", metrics=metrics, adopted=None, seconds=100.0)
    graph: Any = SimpleNamespace(nodes={"net": SimpleNamespace(resources=PretrainResources(workers=8))})
    committed: Any = {"net": SimpleNamespace(record=record)}
    ran, silent = Try("net", 1, 60.0, False), Try("net", 2, 50.0, False)
    found = so_far(graph, committed, [ran, silent], {("net", 1): HeldSoFar(metrics, {}, fingerprint)}, None)
    assert found == Consumption(210, 2 * gpu_hours, gpu_hours)


def test_a_run_that_failed_and_went_on_counts_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the driver itself: five core-seconds in each of its attempts, and a second look finds them on record."""
    monkeypatch.setattr(Unranked, "held", lambda self, node: {"CPU": 5.0})
    fails = iter([True])

    def once(_: Any) -> None:
        if next(fails, False):
            raise StageError("make", "it ends", "run again")

    monkeypatch.setitem(HOOKS, "a", once)
    spec = tiny_spec(tmp_path, {"a": {"value": 2}})
    with pytest.raises(StageError):
        run(spec, (), tiny_ways())
    node = LocalStore(tmp_path / "runs" / "tiny" / "a")
    (told,) = [entry.path for entry in node.list() if entry.path.endswith(PATH)]
    assert held_before(node, (told.partition("/")[0],)) == {"core_seconds": 5, "gpu_seconds": 0}
    run(spec, (), tiny_ways())
    (record,) = records_in(node)
    assert record.metrics["core_seconds"] == 10
