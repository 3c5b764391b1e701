"""What a node waits for: in the progress file that its driver writes, in words, and in `status`."""

from pathlib import Path

import pytest

from vitpipe.infra.progress import StoreProgress, read_progress
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.waiting import Waiting, waiting_in
from vitpipe.pipeline.store.node_status import running_status


@pytest.mark.parametrize(
    ("waiting", "words"),
    [
        (Waiting("missing", "2 x (4 CPU)", "largest machine has 1 CPU"),
         "2 x (4 CPU) asked for, largest machine has 1 CPU"),
        (Waiting("busy", "2 x (4 CPU)", behind=("tuned/a", "probe"), seconds=12.3),
         "2 x (4 CPU) asked for, busy with tuned/a, probe; about 12 s"),
        (Waiting("busy", "1 GPU"), "1 GPU asked for, machines are busy"),
        (Waiting("queue", "1 CPU", behind=("a", "b", "c", "d"), place=3, of=150, seconds=5400),
         "place 3 of 150 in the queue, behind a, b, c and others; about 1.5 h"),
        (Waiting("start"), "a process starts"),
    ],
)  # fmt: skip
def test_it_is_said_in_words(waiting: Waiting, words: str) -> None:
    assert waiting.text == waiting.to_json()["text"] == words


def test_it_travels_by_the_progress_file_and_ends_where_the_work_begins(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    driver, worker = StoreProgress(store, "a1", 1), StoreProgress(store, "a1.1", 1)
    driver.begin()
    driver.update(3, 9, "trials")
    driver.waits(Waiting("queue", "1 CPU", place=2, of=4))
    fields = read_progress(store)
    assert fields and fields["step"] == 3 and fields["waits"]["place"] == 2
    status = running_status("tuned", fields)
    assert (status.state, status.why) == ("waiting", "trial 3 of 9, place 2 of 4 in the queue")
    assert status.waits == fields["waits"]
    driver.starts()
    fields = read_progress(store)
    assert fields and (status := running_status("tuned", fields)).state == "running" and "starts" in status.why
    worker.begun()
    fields = read_progress(store)
    assert fields and "waits" not in fields and fields["step"] == 3
    assert running_status("tuned", fields).waits is None
    driver.update(4, 9, "trials")
    driver.flush()
    fields = read_progress(store)
    assert fields and "waits" not in fields and fields["step"] == 4


def test_another_attempts_wait_is_left_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    StoreProgress(store, "a2", 2).waits(Waiting("start"))
    StoreProgress(store, "a1", 1).begun()
    fields = read_progress(store)
    assert fields and fields["waits"]


@pytest.mark.parametrize("damaged", [None, 3, [], {}, {"for": "tea", "text": "x"}, {"for": "busy", "text": None}])
def test_what_nobody_can_read_is_no_reason(damaged: object) -> None:
    assert waiting_in({"waits": damaged}) is None
