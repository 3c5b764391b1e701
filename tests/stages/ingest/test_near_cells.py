"""The search for near-duplicates in tasks: none holds more as images grow in number, and each is compared with few."""

import shutil
from collections import Counter
from pathlib import Path

import near_in_parts
import numpy as np
import pytest
from inprocess import InProcessCluster
from lookalikes import jpeg, scene
from photos import contents, ingest, write
from small_parts import small_parts
from test_crowds import Comparisons, alike
from test_near import kept

from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.choose import near
from vitpipe.stages.ingest.choose.hamming import HashCell, bands_below, comparisons
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES
from vitpipe.stages.ingest.parts.sheets import Sheets
from vitpipe.stages.ingest.write.writer import write_shard

RANGE = 400
VIEWS = 5
VIEW_BYTES = 8 + 4 + LIKENESS_BYTES


def random_images(count, copies=0.01):
    """Photographs look like nothing else; one in a hundred is another's copy."""
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 256, (count, VIEWS, LIKENESS_BYTES), dtype=np.uint8)
    for row in np.flatnonzero(rng.random(count - 1) < copies) + 1:
        looks[row] = looks[row - 1] ^ np.eye(1, LIKENESS_BYTES, rng.integers(32), dtype=np.uint8)
    return [kept(f"{row:06d}", look.tobytes()) for row, look in enumerate(looks)]


class Counted(InProcessCluster):
    """Counts the bytes of all tables that the hungriest task of each kind reads, and the tasks."""

    def __init__(self, patch):
        super().__init__()
        self.most, self.tasks, self._read, read = Counter(), Counter(), 0, Sheets.read

        def counted(sheets, node, number):
            table = read(sheets, node, number)
            self._read += table.nbytes
            return table

        patch.setattr(Sheets, "read", counted)

    def fan(self, fn, items, *, resources, label=str, seconds=None):
        for item in items:
            self._read = 0
            yield from super().fan(fn, [item], resources=resources, label=label)
            self.most[fn.__name__] = max(self.most[fn.__name__], self._read)
            self.tasks[fn.__name__] += 1


def searched(count, patch, images=None, **sizes):
    """Bytes read by the hungriest task of each kind, tasks, and comparisons for an image."""
    for name, size in {"RANGE_IMAGES": RANGE, "SOLE": 0, **sizes}.items():
        patch.setattr(near, name, size)
    cluster, compared = Counted(patch), Comparisons(patch)
    found = near_in_parts.near_duplicates(images or random_images(count), [], 4, RANGE, -(-count // RANGE), cluster)
    return found, cluster, compared.count / count


def test_no_task_holds_more_of_more_images():
    """The negative control is one cell: as large as all looks together."""
    for count in (1_200, 3_600):
        with pytest.MonkeyPatch.context() as patch:
            found, cluster, compared = searched(count, patch)
            assert abs(len(found.dropped) / count - 0.01) < 0.005 and found.in_part == 0
            assert cluster.tasks["meet"] == 5 * count // RANGE and "crowd_views" not in cluster.tasks
            assert max(cluster.most.values()) < 1.5 * RANGE * (VIEWS * VIEW_BYTES + 200)
            assert cluster.most["decide"] < count  # some pairs, no looks
            bands = bands_below(12, count, 4)
            assert compared < 2 * (2 * VIEWS - 1) * 5 * comparisons(bands, 12, count)
    with pytest.MonkeyPatch.context() as patch:
        _, cluster, _ = searched(3_600, patch, SOLE=10**9)
        assert cluster.most["meet"] >= 3_600 * VIEWS * VIEW_BYTES


def test_an_image_of_a_billion_is_compared_with_few():
    """Of five groups of 12 bits, at four bits; the negative control is a cell of all."""
    planned = {count: 5 * comparisons(bands_below(12, count, 4), 12, count) for count in (10**6, 10**8, 10**9)}
    assert planned[10**6] < 50 and planned[10**8] < 400 and planned[10**9] < 600
    whole = {count: comparisons(HashCell.of_all(count, 4).bands, 0, count) for count in planned}
    assert whole[10**8] > 5 * planned[10**8] and whole[10**9] > 30 * planned[10**9]


def test_one_task_holds_what_looks_alike_and_nothing_else():
    """Of 2,000 images 700 are a crowd."""
    images = [*random_images(1_300, 0), *(kept(f"x{one.item.name}", one.seen.likeness) for one in alike(700, VIEWS, 1))]
    with pytest.MonkeyPatch.context() as patch:
        found, cluster, _ = searched(2_000, patch, images)
        assert {one.source for one in found.dropped} == {f"x{number:06d}" for number in range(1, 700)}
        assert 700 * VIEWS * VIEW_BYTES <= cluster.most["decide"] < 1_000 * VIEWS * VIEW_BYTES


def refusing(task):
    raise KeyboardInterrupt


def test_a_restart_takes_every_part_of_a_search(tmp_path, monkeypatch):
    small_parts(monkeypatch)
    for number in range(9):
        write(tmp_path / f"in/a/{number}.jpg", jpeg(scene(number // 2), 92 - number % 2))
    asked = {"source": {"kind": "folder", "root": str(tmp_path / "in")}, "deduplicate": {"near": {"hamming": 2}}}
    plain = contents(ingest(tmp_path, asked, node="plain"))
    assert plain["duplicates.jsonl"].count(b"near") == 4

    monkeypatch.setattr(run_module, "write_shard", refusing)
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, asked)
    monkeypatch.setattr(run_module, "write_shard", write_shard)
    parts = tmp_path / "store/test/shards/a1/parts"
    kinds = {"looks", "distinct", "met", "pairs", "decided", "twins", "matches", "near"}
    assert kinds <= {folder.name for folder in Path(parts).iterdir()}
    shutil.rmtree(parts / "decided")
    resumed = ingest(tmp_path, asked, attempt="a2", earlier=("a1",))
    assert contents(resumed) == plain
    made = {path.name for path in (tmp_path / "store/test/shards/a2/parts").iterdir()}
    assert made == {"decided", "streamed"}  # of a folder the listing is written anew
