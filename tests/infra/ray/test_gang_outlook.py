"""What ranks hear of: a machine that is taken away, room for more, a cluster that is gone; and whose silence counts."""

from types import SimpleNamespace

import pytest
import ray
from test_cluster import Told

from vitpipe.infra.errors import Lost
from vitpipe.infra.ray import gang_notices, gang_outlook, gang_watch
from vitpipe.infra.ray.gang_notes import News
from vitpipe.infra.ray.gang_outlook import Outlook
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.ray.gang_watch import GangWatch
from vitpipe.infra.work import Job


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock, drained machines, room for more ranks, and whether the cluster answers: all to be set."""
    world = SimpleNamespace(now=1000.0, draining={}, added=0, gone=None)
    clock = SimpleNamespace(monotonic=lambda: world.now, strftime=lambda *_: "12:00:00", localtime=lambda _: None)
    monkeypatch.setattr(gang_outlook, "time", clock)
    monkeypatch.setattr(gang_notices, "time", clock)
    monkeypatch.setattr(gang_outlook, "cluster_gone", lambda: world.gone)
    monkeypatch.setattr(gang_outlook, "ask_head", lambda asked, question: question())
    state = SimpleNamespace(get_draining_nodes=lambda: world.draining)
    monkeypatch.setattr(ray._private.state, "state", state)
    return world


def outlook(world: SimpleNamespace, told: Told | None = None) -> Outlook:
    ranks = {0: SimpleNamespace(node="a"), 1: SimpleNamespace(node="b")}
    room = SimpleNamespace(added=lambda: world.added, is_lost=False)
    return Outlook(Job("run", "node", events=told), "run 2 ranks", room, ranks)  # type: ignore[arg-type]


def later(world: SimpleNamespace, found: Outlook, seconds: float) -> News:
    for _ in range(int(seconds)):
        world.now += 1
        found.look()
    return found.look()


def test_room_is_used_once_it_has_lasted(world: SimpleNamespace) -> None:
    found = outlook(world)
    assert later(world, found, 60).notice is None
    world.added = 1
    assert later(world, found, 20).notice is None
    world.added = 0
    assert later(world, found, 20).notice is None, "it was gone meanwhile"
    world.added = 2
    assert later(world, found, 25).notice is None
    assert later(world, found, 15).notice == "there is room for 2 more ranks"


def test_a_drained_machine_is_told_if_the_gang_is_on_it(world: SimpleNamespace, tmp_path) -> None:
    told = Told(tmp_path / "events")
    found = outlook(world, told)
    world.draining = {"elsewhere": 0}
    assert later(world, found, 10).notice is None and found.reclaimed == frozenset()
    world.draining = {"elsewhere": 0, "b": 1}
    assert later(world, found, 10).notice == "preemption: b will be taken away by 12:00:00"
    world.draining |= {"a": 0}
    later(world, found, 10)
    assert found.reclaimed == {"a", "b"} and len(told.lines()) == 1, "told once"


def test_a_cluster_may_be_away_for_a_moment(world: SimpleNamespace) -> None:
    found = outlook(world)
    world.gone = "no Ray answered"
    later(world, found, 5)
    world.gone = None
    later(world, found, 5)
    world.gone = "no Ray answered"
    later(world, found, 5)
    with pytest.raises(Lost, match=r"the cluster is gone \(no Ray answered\)"):
        later(world, found, 7)
    assert found.room.is_lost


def test_silence_while_the_driver_stood_still_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped for an hour between two looks; a rank that is silent for longer than it may be is given up."""
    now = [0.0]
    monkeypatch.setattr(gang_watch, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(asked, num_returns, timeout):
        now[0] += jumps.pop(0)
        return [], asked

    monkeypatch.setattr(ray, "wait", wait)
    ranks = SimpleNamespace(actors=[None, None], places={})
    watch = GangWatch(Job("run", "node"), ranks, Size(2, 2, 1, 0), 0, 60, News)  # type: ignore[arg-type]
    watch._ask(1, "beat", "reference")  # type: ignore[arg-type]
    jumps = [1.0, 3600.0, 1.0]
    for _ in range(3):
        watch._hear()
    assert not watch._failures
    jumps = [1.0] * 150
    while jumps and not watch._failures:
        watch._hear()
    assert watch._failures[1].is_gone and "silent for 120 s" in watch._failures[1].words
