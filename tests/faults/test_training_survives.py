"""Real trainings under real losses: what goes on ends with the numbers of a run that nobody disturbed.

Every case compares losses as hex and the SHA-256 of weights and moments with an undisturbed run of this session. The
losses of a machine and of the head are in every run of the tests; the others are drills.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from driving import finish, losses, signal_all, vitpipe, wait_for
from trainings import Training, cluster

pytestmark = pytest.mark.timeout(1500)

NEAR_STEPS = 20


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Nothing happens to it."""
    training = Training(tmp_path_factory.mktemp("calm"))
    training.again()
    return training


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Nothing happens to it either; it lasts for minutes."""
    training = Training(tmp_path_factory.mktemp("slow"), steps=900, layers=8, micro_batch=1, keep=99)
    training.again()
    return training


@pytest.fixture
def rough(calm: Training, tmp_path: Path) -> Training:
    return Training(tmp_path, shards=f"file://{calm.run}/glyphs")


@pytest.mark.drill
def test_a_rank_that_stands_still(calm: Training, tmp_path: Path) -> None:
    rough = Training(tmp_path, shards=f"file://{calm.run}/glyphs", hang_timeout_s=20)
    process = rough.begin()
    os.kill(rough.pid(1), signal.SIGSTOP)
    finish(process)
    assert rough.result() == calm.result()
    assert len(rough.events("rank_lost")) == 1 and rough.events("resumed")
    assert "most recent call first" in vitpipe("logs", rough.run, "backbone", cwd=tmp_path).stdout


@pytest.mark.drill
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(second: signal.Signals, calm: Training, rough: Training) -> None:
    """One rank stands still, so that the first signal alone would have to wait for its grace."""
    process = rough.begin()
    stopped = rough.pid(1)
    os.kill(stopped, signal.SIGSTOP)
    try:
        os.kill(process.pid, signal.SIGTERM)
        wait_for("the wish to stop", lambda: (rough.run / "stop.json").exists(), process)
        before = rough.steps_committed()
        os.kill(process.pid, second)
        done = finish(process, expect=6)
    finally:
        wait_for("the end of the rank", lambda: not _continued(stopped))
    assert "did not end within" not in done.stderr and not rough.events("failed")
    assert before and rough.steps_committed() == before
    rough.again()
    assert rough.result() == calm.result()


@pytest.mark.drill
def test_sigterm_to_everybody(calm: Training, rough: Training) -> None:
    process = rough.begin()
    before = rough.steps_committed()
    signal_all(process, signal.SIGTERM)
    finish(process, expect=6)
    assert rough.steps_committed()[-1] not in before, "a checkpoint was committed on the way out"
    rough.again()
    assert rough.result() == calm.result()


def test_one_of_three_machines_is_lost(calm: Training, rough: Training) -> None:
    with cluster(rough.folder) as machines:
        process = rough.begin(machines.environment)
        machines.do("lose 1")
        machines.do("add 1")
        finish(process)
    assert rough.result() == calm.result()
    assert len(rough.events("rank_lost")) == 1


def test_the_head_is_lost(calm: Training, rough: Training) -> None:
    with cluster(rough.folder) as machines:
        process = rough.begin(machines.environment)
        machines.do("lose-head")
        done = finish(process, expect=4)
    assert "the cluster is gone" in done.stderr and "Run the same command again, on a new cluster" in done.stderr
    with cluster(rough.folder) as machines:
        rough.again(machines.environment)
    assert rough.result() == calm.result()
    assert [one for one in rough.events("resumed") if "from step" in one]


@pytest.mark.drill
def test_an_address_where_no_head_is(calm: Training, rough: Training) -> None:
    with cluster(rough.folder) as machines:
        machines.do("lose-head")
        vitpipe("run", rough.spec, cwd=rough.folder, env=machines.environment, expect=7)


@pytest.mark.drill
def test_a_gang_shrinks_and_grows_again(slow: Training, tmp_path: Path) -> None:
    """Equal until it shrinks. On fewer ranks sums have another order, and some steps later a training is another one:

    what is compared is the first steps after each change, with those of ranks that did not change.
    """
    rough = replace(slow, folder=tmp_path, shards=f"file://{slow.run}/glyphs", workers="[1, 3]")
    sizes = []
    with cluster(rough.folder) as machines:
        process = rough.begin(machines.environment)
        for what, size in (("lose 1", 2), ("add 1", 3)):
            machines.do(what)
            wait_for(f"{size} ranks", lambda size=size: len(rough.now().get("ranks", [])) == size, process)
            sizes.append(size)
        finish(process)
    assert sizes == [2, 3] and rough.events("resized")[-1].startswith("2 ranks become 3")
    shrunk, grown = (int(text.split()[2]) for text in rough.events("resumed"))  # "from step N of ..."
    assert 0 < shrunk < grown
    ours, calm = losses(rough.run), losses(slow.run)
    assert [step for step, _ in ours] == list(range(1, slow.steps + 1)) and rough.ledger() == slow.ledger()
    assert ours[:shrunk] == calm[:shrunk]
    assert_near(ours, calm, after=shrunk)
    small = rough.before_last_attempt(tmp_path / "small", workers="2")
    small.again()
    assert losses(small.run)[:grown] == ours[:grown]
    assert_near(ours, losses(small.run), after=grown)


def assert_near(ours: list[tuple[int, str]], theirs: list[tuple[int, str]], after: int) -> None:
    """In another order of sums, hence not equal; the bound is that of tests/distributed/test_elastic_resume.py."""
    apart = [
        abs(float.fromhex(one) / float.fromhex(other) - 1)
        for (_, one), (_, other) in zip(ours[after : after + NEAR_STEPS], theirs[after:], strict=False)
    ]
    assert len(apart) == NEAR_STEPS and any(apart)
    assert all(one <= 2e-5 * max(step, 6) / 6 for step, one in enumerate(apart, 1)), apart


def _continued(pid: int) -> bool:
    """Whether a process that was stopped is still there; it hears what it missed."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
