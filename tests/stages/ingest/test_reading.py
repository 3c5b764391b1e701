"""Reading ahead keeps the order, is bounded, and gives a bad image in its place."""

import threading
import time

import pytest

from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.reading import ahead, one_by_one


def read(number: int) -> bytes:
    time.sleep(0.001 * (number % 3))
    if number == 4:
        raise BadImage("four")
    return bytes([number])


@pytest.mark.parametrize("how", [one_by_one, ahead])
def test_in_order_with_the_bad_one_in_its_place(how):
    found = list(how(read, range(20)))
    assert str(found.pop(4)) == "four"
    assert found == [bytes([number]) for number in range(20) if number != 4]


def test_several_at_once_and_never_more():
    together = threading.Barrier(4, timeout=30)  # breaks, and the test with it, unless four reads are under way at once
    taken: list[int] = []

    def meet(number: int) -> bytes:
        taken.append(number)
        together.wait()
        return b""

    reads = ahead(meet, range(8), at_once=4)
    assert next(reads) == b"" and len(taken) == 4
    assert len(list(reads)) == 7


def test_another_error_is_raised():
    def fail(number: int) -> bytes:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(ahead(fail, range(3)))
