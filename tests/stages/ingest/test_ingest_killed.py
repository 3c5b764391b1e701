"""SIGKILL at random moments, and real worker processes: the same bytes as an undisturbed run."""

import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

import pytest
from photos import contents, encoded, ingest, picture, write

from infra.work import Done
from stages.ingest import run as run_module
from stages.record import load_artifact

PROCESSES = multiprocessing.get_context("forkserver")  # children begin with everything imported
PROCESSES.set_forkserver_preload(["photos", "stages.ingest.writer"])
KILLS = 5


class PoolCluster:
    """So many workers in processes of their own; results as they end."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def fan(self, fn, items, *, resources, label=str):
        with ProcessPoolExecutor(self.workers, PROCESSES) as pool:
            begun = {pool.submit(fn, item): item for item in items}
            for future in as_completed(begun):
                yield Done(begun[future], result=future.result())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    for number in range(240):
        write(root / f"class-{number % 3}/{number:03d}.png", encoded(picture(number, 64, 48), "PNG"))
    write(root / "class-0/bad.png", b"bad")
    return {
        "source": {"kind": "folder", "root": str(root)},
        "images_per_shard": 8,
        "splits": {"train": 0.8, "test": 0.2},
    }


def attempt(tmp_path, config, node, number, began):
    """One driver: it goes on from what all before it left."""
    run_module.CHUNK_IMAGES = 16
    earlier = tuple(f"a{before}" for before in range(number - 1, 0, -1))
    began.set()
    ingest(tmp_path, config, node=node, attempt=f"a{number}", earlier=earlier)


def test_killed_at_random_moments_and_resumed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK_IMAGES", 16)
    start = time.monotonic()
    plain = contents(ingest(tmp_path, config, node="plain"))
    seconds = time.monotonic() - start
    moments, killed, tries = random.Random(time.time_ns()), 0, [0]
    while killed < KILLS:
        tries[-1] += 1
        began = PROCESSES.Event()
        driver = PROCESSES.Process(target=attempt, args=(tmp_path, config, f"killed-{len(tries)}", tries[-1], began))
        driver.start()
        assert began.wait(60)
        driver.join(moments.uniform(0, seconds))
        driver.kill()
        driver.join()
        if driver.exitcode == 0:
            tries.append(0)  # it was quicker: the next one begins anew
        else:
            killed += 1
    if tries[-1]:
        attempt(tmp_path, config, f"killed-{len(tries)}", tries[-1] + 1, PROCESSES.Event())
    else:
        tries.pop()
    for number in range(1, len(tries) + 1):
        resumed = load_artifact(f"file://{tmp_path}/store/test/killed-{number}")
        assert contents(resumed) == plain


def test_one_and_three_workers_write_the_same(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK_IMAGES", 16)
    one, three = (
        contents(ingest(tmp_path, config, node=f"workers-{workers}", cluster=PoolCluster(workers)))
        for workers in (1, 3)
    )
    assert one == three and len(one) > 60
