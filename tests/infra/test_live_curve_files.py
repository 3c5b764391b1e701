"""Live curves: bounded, the same whoever gives them again, written behind the work's back, never in its way."""

import json
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitpipe.infra import curves
from vitpipe.infra.curves import CURVES, OLDER_ROWS, RECENT_ROWS, CurveTable, Gathered, LiveCurves, forget_others, parse
from vitpipe.infra.errors import StorageError
from vitpipe.infra.rewritten import Rewritten
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store


@pytest.fixture
def node(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store/run/backbone")


@given(count=st.integers(0, 400), recent=st.integers(1, 20), older=st.integers(1, 20), resumed=st.integers(0, 400))
def test_the_rows_that_are_kept_depend_on_the_rows_alone(count: int, recent: int, older: int, resumed: int) -> None:
    """Also of those who begin anew and are given the committed rows first."""
    table, again = CurveTable(("loss",), recent, older), CurveTable(("loss",), recent, older)
    for step in range(count):
        table.add(step, None, [step / 2])
    for step in [*range(min(resumed, count)), *range(min(resumed, count), count)]:
        again.add(step, None, [step / 2])
    steps = [row[0] for row in table.rows]
    assert table.rows == again.rows
    assert steps == sorted(set(steps)) and len(steps) <= recent + older
    assert steps[-recent:] == list(range(max(0, count - recent), count))  # the newest are all there
    if count:
        assert steps[0] == 0
        gaps = {b - a for a, b in pairwise(steps[:-recent])}
        assert len(gaps) <= 1 and all(gap & (gap - 1) == 0 for gap in gaps)  # one power of two


def test_a_million_steps_are_one_small_object() -> None:
    gathered = Gathered()
    for step in range(1, 1_000_001):
        values = {
            "train/loss": 1 / step,
            "train/learning_rate": 1e-3 / 3,
            "train/grad_norm": 1 / 7,
            "train/x": 1234.567,
        }
        gathered.add(step, values, step * 0.123456789)
    data = gathered.encode("a1")
    found = parse(data).lines[""]["train/loss"]
    assert len(data) < 200_000 and OLDER_ROWS / 2 < len(found) <= OLDER_ROWS + RECENT_ROWS
    assert found[0].step == 1 and found[-1].step == 1_000_000 and found[-1].value == 1 / 1_000_000


def test_what_is_not_finite_is_left_out() -> None:
    gathered = Gathered()
    for step, loss in ((1, 0.5), (2, float("nan")), (3, None)):
        gathered.add(step, {"loss": loss, "lr": 0.1})
    lines = parse(gathered.encode("a1")).lines[""]
    assert [point.step for point in lines["loss"]] == [1] and [point.step for point in lines["lr"]] == [1, 2, 3]


def test_a_step_is_in_the_store_without_a_commit(node: Store) -> None:
    live = LiveCurves(node, "a3.1")
    live.add(1, {"train/loss": 0.5}, 1.5)
    live.add(2, {"train/loss": 0.25}, 3.0)
    live.settle(20)
    found = parse(node.read(CURVES))
    assert found.attempt == "a3.1"
    assert [(point.step, point.clock, point.value) for point in found.lines[""]["train/loss"]] == [
        (1, 1.5, 0.5),
        (2, 3.0, 0.25),
    ]


class _Slow:
    """A store that answers no write until it may, then refuses or takes it."""

    def __init__(self, refuses: bool = False) -> None:
        self.asked, self.may, self.refuses, self.written = threading.Event(), threading.Event(), refuses, []

    def write(self, path: str, data: bytes) -> None:
        self.asked.set()
        self.may.wait(30)
        if self.refuses:
            raise StorageError("write", "the store is down", "wait")
        self.written.append(json.loads(data))


def test_a_store_that_hangs_or_refuses_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "EVERY_S", 0.0)
    store = _Slow(refuses=True)
    live = LiveCurves(store, "a1")  # type: ignore[arg-type]
    live.add(1, {"loss": 1.0})
    assert store.asked.wait(30)
    for step in range(2, 100):
        live.add(step, {"loss": 1.0})  # returns, though a write hangs
    live.settle(0.01)  # no longer than that
    assert not store.written
    store.may.set()
    store.refuses = False
    live.add(100, {"loss": 1.0})
    live.settle(30)
    rows = store.written[-1]["tables"][0]["rows"]
    assert [row[0] for row in rows] == list(range(1, 101))  # what was refused comes with the next


def test_writes_are_so_far_apart_and_the_newest_content_wins() -> None:
    store = _Slow()
    store.may.set()
    file = Rewritten(store, "x.json", every_s=3600)  # type: ignore[arg-type]
    file.offer(lambda: b"1")
    file.settle(30)
    for number in range(2, 50):
        file.offer(lambda number=number: b"%d" % number)
    assert store.written == [1]  # the second has to wait an hour
    file.settle(30)
    assert store.written == [1, 49]


def test_points_of_another_recipe_are_emptied_and_those_that_a_resume_takes_stay(node: Store) -> None:
    forget_others(node, ["a1"])
    assert node.size(CURVES) is None  # nothing to empty, nothing written
    live = LiveCurves(node, "a2.3")
    live.add(1, {"loss": 1.0})
    live.settle(30)
    forget_others(node, ["a5", "a2"])
    assert parse(node.read(CURVES)).lines
    forget_others(node, ["a5", "a3"])
    assert parse(node.read(CURVES)).attempt == "a5" and not parse(node.read(CURVES)).lines


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"schema": 1}', b'{"schema": 1, "attempt": "a1", "tables": [{"of": ""}]}', b"{}" * 2]
)
def test_damage_is_said_and_mended_by_the_next_attempt(node: Store, data: bytes) -> None:
    with pytest.raises(ValueError):
        parse(data)
    node.write(CURVES, data)
    forget_others(node, ["a1"])
    assert parse(node.read(CURVES)).attempt == "a1"


def test_a_newer_schema_is_named() -> None:
    with pytest.raises(ValueError, match="a newer vitpipe wrote it: schema 99"):
        parse(b'{"schema": 99, "attempt": "a1", "tables": []}')
