"""Many questions at once: answers in order, a bounded number under way, the first error in its place."""

import threading
import time
from collections.abc import Iterator

import pytest

from vitpipe.infra.at_once import answers, by_key


def test_answers_come_in_the_order_of_the_questions_and_few_are_under_way() -> None:
    under_way, most, lock = set[int](), 0, threading.Lock()
    asked = []

    def questions() -> Iterator[int]:
        for number in range(60):
            asked.append(number)
            yield number

    def ask(number: int) -> int:
        nonlocal most
        with lock:
            under_way.add(number)
            most = max(most, len(under_way))
        time.sleep(0.002 * (number % 3))
        with lock:
            under_way.remove(number)
        return number

    for place, answer in enumerate(answers(ask, questions(), at_once=5)):
        assert answer == place and len(asked) <= place + 5, "no question is taken long before its answer is"
    assert 1 < most <= 5


def test_the_first_error_comes_in_its_place() -> None:
    heard = []
    with pytest.raises(ZeroDivisionError):
        for answer in answers(lambda number: 1 // (3 - number), range(9), at_once=4):
            heard.append(answer)
    assert heard == [0, 0, 1]


def test_who_stops_listening_asks_no_more() -> None:
    asked = []
    for _ in answers(asked.append, range(1_000), at_once=4):
        break
    assert len(asked) <= 4


def test_each_key_has_its_answer() -> None:
    assert by_key(str.upper, iter("abc")) == {"a": "A", "b": "B", "c": "C"}
    assert by_key(str.upper, ()) == {}
