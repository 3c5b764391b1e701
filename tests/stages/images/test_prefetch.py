"""Work ahead comes in order, and errors in their place."""

import threading

import pytest

from vitpipe.stages.images.prefetch import in_order


def threads() -> set[threading.Thread]:
    """Those that read ahead, of other tests too: a reader that a test dropped ends when it is collected."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("vitpipe-images")}


def test_order_and_how_far_ahead():
    begun: list[int] = []

    def make(job: int) -> int:
        begun.append(job)
        return job * job

    made = in_order(make, iter(range(10)), threads=3, ahead=4)
    assert next(made) == 0
    assert len(begun) <= 5
    assert list(made) == [job * job for job in range(1, 10)]


def test_an_error_comes_in_its_place_and_threads_end():
    def make(job: int) -> int:
        return 1 // (job - 2)

    before = threads()
    made = in_order(make, range(5), threads=2, ahead=3)
    assert [next(made), next(made)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert threads() <= before


def test_who_stops_asking_leaves_no_thread():
    before = threads()
    made = in_order(lambda job: job, range(100), threads=2, ahead=8)
    next(made)
    assert threads() > before
    made.close()
    assert threads() <= before
