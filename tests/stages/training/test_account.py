"""Where the time went, over stops and restarts, on a clock of our own."""

import pytest

from vitpipe.stages.training.measure.account import CAUSES, Account


def test_a_clock_that_is_behind_makes_no_share_above_one():
    account = Account(began=5000.0)  # by the clock of the machine before
    account.step(40.0, 0.0, skipped=False)
    totals = account.totals(now=4000.0)
    assert totals["goodput"] == 1.0 and totals["seconds_other"] == 0.0


def test_every_second_has_a_cause() -> None:
    account = Account(began=100.0)
    account.spend("startup", 10)
    for _ in range(8):
        account.step(seconds=5.0, data_wait_seconds=1.0, skipped=False)
    account.step(seconds=5.0, data_wait_seconds=0.0, skipped=True)
    account.spend("checkpoint", 3)
    totals = account.totals(now=100 + 10 + 45 + 3 + 2)
    assert totals == {
        "goodput": pytest.approx(32 / 60), "seconds_productive": 32, "seconds_queue": 0, "seconds_startup": 10,
        "seconds_data_wait": 8, "seconds_checkpoint": 3, "seconds_evaluation": 0, "seconds_skipped": 5,
        "seconds_restarts": 0, "seconds_other": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("since", "queue"), [(0, 0), (90, 0), (130, 30), (170, 60)])
def test_waiting_for_machines_is_no_start_up(since: float, queue: float) -> None:
    """Whatever another machine's clock says, both together are the time that passed."""
    account = Account(began=100.0)
    account.begins(start=100.0, since=since, now=160.0)
    assert (account.seconds["queue"], account.seconds["startup"]) == (queue, 60 - queue)


def test_what_lies_between_a_checkpoint_and_the_next_start_is_lost() -> None:
    """Steps rolled back, and machines that were not there."""
    account = Account(began=0.0)
    account.step(40.0, 0.0, skipped=False)
    saved = account.encoded(at=50.0)
    account.step(30.0, 0.0, skipped=False)  # and then it dies
    found = Account.resumed(saved, start=200.0)
    assert found.seconds["productive"] == 40 and found.seconds["restarts"] == 150
    assert found.totals(200.0)["goodput"] == pytest.approx(0.2)


def test_time_that_was_asked_to_pass_is_nobodys_loss() -> None:
    account = Account(began=0.0)
    account.step(40.0, 0.0, skipped=False)
    found = Account.resumed(account.encoded(at=50.0, stopped=True), start=1000.0)
    assert found.totals(1000.0)["goodput"] == pytest.approx(0.8)
    again = Account.resumed(found.encoded(at=1050.0), start=1100.0)
    assert again.seconds["restarts"] == 50 and again.stopped == 950


def test_a_step_cannot_have_waited_longer_than_it_took() -> None:
    account = Account(began=0.0)
    account.step(2.0, 3.0, skipped=False)
    assert account.seconds["productive"] == 0 and account.seconds["data_wait"] == 2
    assert set(account.seconds) == set(CAUSES)
