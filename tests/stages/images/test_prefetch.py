"""Work ahead comes in order, and errors in their place; every thread has a part to make."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from vitpipe.stages.images.prefetch import AHEAD_BYTES, InParts, in_order, in_parts, most_ahead

ManyInOrder = Callable[[Callable[[int], int], range, int, int], Iterator[int]]


def threads() -> set[threading.Thread]:
    """Those that read ahead, of other tests too: a reader that a test dropped ends when it is collected."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("vitpipe-images")}


def whole(make: Callable[[int], int], items: range, threads: int, ahead: int) -> Iterator[int]:
    """`in_order` by `in_parts`: the work is in the second of three parts."""

    def begin(item: int) -> InParts[int]:
        made: list[int] = []
        return InParts([lambda: None, lambda: made.append(make(item)), lambda: None], lambda: made[0])

    return in_parts(begin, items, threads, ahead)


@pytest.fixture(params=[in_order, whole], ids=["whole", "in-parts"])
def ahead_of(request: pytest.FixtureRequest) -> ManyInOrder:
    return request.param


def test_order_and_how_far_ahead(ahead_of: ManyInOrder) -> None:
    begun: list[int] = []

    def make(job: int) -> int:
        begun.append(job)
        return job * job

    made = ahead_of(make, range(10), 3, 4)
    assert next(made) == 0
    assert len(begun) <= 5
    assert list(made) == [job * job for job in range(1, 10)]


def test_an_error_comes_in_its_place_and_threads_end(ahead_of: ManyInOrder) -> None:
    def make(job: int) -> int:
        return 1 // (job - 2)

    before = threads()
    made = ahead_of(make, range(5), 2, 3)
    assert [next(made), next(made)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert threads() <= before


def test_who_stops_asking_leaves_no_thread(ahead_of: ManyInOrder) -> None:
    before = threads()
    made = ahead_of(lambda job: job, range(100), 2, 8)
    next(made)
    assert threads() > before
    made.close()  # type: ignore[attr-defined]  # a generator
    assert threads() <= before


@pytest.mark.parametrize("step", ["begin", "part", "done"])
def test_whatever_fails_of_a_batch_is_raised_in_its_place(step: str) -> None:
    def fails(place: str, item: int) -> None:
        if place == step and item == 1:
            raise OSError(place)

    def begin(item: int) -> InParts[int]:
        fails("begin", item)
        return InParts([partial(fails, "part", item)] * 5, lambda: [fails("done", item)] and item)

    made = in_parts(begin, range(9), 2, 3)
    assert next(made) == 0
    with pytest.raises(OSError, match=step):
        next(made)


def test_a_batch_without_parts_is_done_at_once() -> None:
    assert [*in_parts(lambda item: InParts[int]([], lambda: item).then(lambda one: one + 1), range(3), 2, 1)] == [
        1,
        2,
        3,
    ]


def most_at_once(workers: int, parts: int, ahead: int) -> int:
    """Most parts that were in work at a time; each waits a while for as many as there are workers."""
    here, most, gate = set[int](), [0], threading.Condition()
    numbers = iter(range(10**6))

    def part() -> None:
        with gate:
            here.add(mine := next(numbers))
            most[0] = max(most[0], len(here))
            gate.notify_all()
            gate.wait_for(lambda: most[0] == workers, timeout=0.5)
            here.discard(mine)

    consumed = in_parts(lambda item: InParts([part] * parts, lambda: item), range(3), workers, ahead)
    assert [*consumed] == [0, 1, 2]
    return most[0]


def test_all_threads_are_at_parts_of_few_batches() -> None:
    parts = 8  # of a micro-batch of 64 images
    assert most_at_once(16, parts, most_ahead(64 * 3 * 224**2, parts, 16)) == 16
    assert most_at_once(16, 1, 2) == 3  # whole batches: no more threads than batches


def test_as_many_batches_ahead_as_threads_and_memory_want() -> None:
    assert most_ahead(1000) == 4
    assert most_ahead(1000, parts=1, threads=16) == 32
    assert most_ahead(1000, parts=8, threads=16) == 4
    assert most_ahead(AHEAD_BYTES // 3, parts=1, threads=16) == 3
    assert most_ahead(AHEAD_BYTES * 2, parts=1, threads=16) == 1
