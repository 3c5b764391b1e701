"""Headers of NumPy's arrays are parsed by one thread at a time, whoever reads them."""

import ast
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vitpipe.infra.npz import loaded
from vitpipe.stages.convert.containers.npz_file import open_npz
from vitpipe.stages.ingest.sources.inventory import Inventory, parse_inventory


def archive() -> bytes:
    made = io.BytesIO()
    np.savez(made, a=np.zeros(3, np.float32), b=np.ones(2, np.float32))
    return made.getvalue()


def most_at_once(monkeypatch: pytest.MonkeyPatch, read: Callable[[], object]) -> int:
    """How many of four threads were inside the parser together."""
    inside, most, lock, really = set[int](), [0], threading.Lock(), ast.literal_eval

    def parse(text: str) -> object:
        inside.add(threading.get_ident())
        with lock:
            most[0] = max(most[0], len(inside))
        time.sleep(0.02)
        inside.discard(threading.get_ident())
        return really(text)

    monkeypatch.setattr(ast, "literal_eval", parse)
    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(read) for _ in range(4)]:
            one.exception()
    return most[0]


def plainly(data: bytes) -> None:
    with np.load(io.BytesIO(data)) as held:
        held["a"]


def by_us(data: bytes) -> None:
    with loaded(io.BytesIO(data)) as held:
        held["a"]


def test_one_thread_at_a_time_parses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert most_at_once(monkeypatch, lambda: by_us(archive())) == 1
    monkeypatch.undo()
    inventory = Inventory.of([("a.png", 3, 5)], {}).encode()
    assert most_at_once(monkeypatch, lambda: parse_inventory(inventory, "files.npz")) == 1
    monkeypatch.undo()
    (tmp_path / "weights.npz").write_bytes(archive())
    assert most_at_once(monkeypatch, lambda: open_npz(tmp_path / "weights.npz")) == 1


def test_numpys_own_reader_parses_in_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_at_once(monkeypatch, lambda: plainly(archive())) > 1
