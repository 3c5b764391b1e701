"""SIGKILL at random moments, and real worker processes: the same bytes as an undisturbed run."""

import multiprocessing
import random
import signal
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

import pytest
from photos import contents, encoded, ingest, picture, write

from vitpipe.infra.work import Done
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.lists import listed
from vitpipe.stages.ingest.write.writer import write_shard
from vitpipe.stages.record import load_artifact

PROCESSES = multiprocessing.get_context("forkserver")  # children begin with everything imported
PROCESSES.set_forkserver_preload(["photos", "vitpipe.stages.ingest.write.writer"])
KILLS, FEW = 5, 3
"""Of the 31 shards each killed driver writes about so many: some are always left for the last."""
SLOW_S = 0.03


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


def write_slowly(task):
    """So that a kill finds work to end."""
    time.sleep(SLOW_S)
    return write_shard(task)


def attempt(tmp_path, config, number, began):
    """One driver: it goes on from what all before it left."""
    listed.CHUNK_IMAGES = 16
    run_module.write_shard = write_slowly
    began.set()
    ingest(
        tmp_path, config, node="killed", attempt=f"a{number}", earlier=tuple(f"a{n}" for n in range(number - 1, 0, -1))
    )


def test_killed_at_random_moments_and_resumed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(listed, "CHUNK_IMAGES", 16)
    plain = ingest(tmp_path, config, node="plain")
    moments, folder = random.Random(time.time_ns()), tmp_path / "store/test/killed"
    for number in range(1, KILLS + 1):
        began = PROCESSES.Event()
        driver = PROCESSES.Process(target=attempt, args=(tmp_path, config, number, began))
        driver.start()
        assert began.wait(60)
        shards = FEW if number == KILLS else moments.randrange(FEW + 1)  # none: while it still looks at images
        while driver.is_alive() and len(list(folder.glob(f"a{number}/*.index"))) < shards:
            time.sleep(0.002)
        driver.join(moments.uniform(0, 2 * SLOW_S))
        driver.kill()
        driver.join()
        assert driver.exitcode == -signal.SIGKILL
    monkeypatch.setattr(run_module, "write_shard", write_shard)  # undone afterwards
    attempt(tmp_path, config, KILLS + 1, PROCESSES.Event())
    resumed = load_artifact(f"file://{folder}")
    assert contents(resumed) == contents(plain)
    assert {file.at.split("/")[0] for file in resumed.files} - {f"a{KILLS + 1}"}  # shards of killed drivers were kept


def test_one_and_three_workers_write_the_same(config, tmp_path, monkeypatch):
    monkeypatch.setattr(listed, "CHUNK_IMAGES", 16)
    one, three = (
        contents(ingest(tmp_path, config, node=f"workers-{workers}", cluster=PoolCluster(workers)))
        for workers in (1, 3)
    )
    assert one == three and len(one) > 60
