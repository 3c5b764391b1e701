"""The same input gives the same bytes: at any number of workers, after any kill, in any place."""

import random
import shutil

import pytest
from inprocess import CollectedEvents, InProcessCluster, make_context
from photos import contents, encoded, ingest, photo_folder, picture, write

from vitpipe.infra.errors import StageError, Stopped
from vitpipe.stages.contract import Inputs
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.lists import listed
from vitpipe.stages.ingest.run import run


class Shuffled(InProcessCluster):
    """Results come in any order, as from several workers, and every task runs twice."""

    def __init__(self, seed: int) -> None:
        super().__init__(rerun_tasks=True)
        self.random = random.Random(seed)

    def fan(self, fn, items, **kwargs):
        mixed = self.random.sample(list(items), len(items))
        yield from self.random.sample(done := list(super().fan(fn, mixed, **kwargs)), len(done))


class Dying(InProcessCluster):
    """Dies after so many tasks."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def fan(self, fn, items, **kwargs):
        for done in super().fan(fn, items, **kwargs):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            yield done


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(listed, "CHUNK_IMAGES", 7)
    root = photo_folder(tmp_path / "user", per_class=12)
    write(root / "class-0/bad.png", b"bad")
    write(root / "class-0/unknown.jpg", encoded(picture(99), "JPEG")[:25] + b"nothing that Pillow knows")
    write(root / "class-1/zzz.png", (root / "class-0/000.png").read_bytes())
    return {
        "source": {"kind": "folder", "root": str(root)},
        "images_per_shard": 4,
        "splits": {"train": 0.8, "test": 0.2},
    }


def test_workers_retries_and_order_of_results_do_not_matter(config, tmp_path):
    plain = contents(ingest(tmp_path, config, node="plain"))
    assert len(plain) > 15
    for seed in range(3):
        assert contents(ingest(tmp_path, config, node=f"other-{seed}", cluster=Shuffled(seed))) == plain


def test_a_folder_that_moved_gives_the_same_bytes(config, tmp_path):
    plain = contents(ingest(tmp_path, config, node="plain"))
    shutil.move(tmp_path / "user", tmp_path / "elsewhere")
    moved = {**config, "source": {"kind": "folder", "root": str(tmp_path / "elsewhere")}}
    assert contents(ingest(tmp_path, moved, node="moved")) == plain


@pytest.mark.parametrize("after", range(0, 20, 3))
def test_killed_and_resumed_gives_the_same_bytes(config, tmp_path, after):
    plain = contents(ingest(tmp_path, config, node="plain"))
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, config, cluster=Dying(after))
    resumed = ingest(tmp_path, config, attempt="a2", earlier=("a1",))
    assert contents(resumed) == plain
    adopted = [file.path for file in resumed.files if file.at.startswith("a1/")]
    assert bool(adopted) == (after >= 11)  # one sorts, six look, four choose
    told = CollectedEvents(tmp_path / "local/shards/events.jsonl").of("resumed")
    looks = [f"{min(after, 6)} of 6 looks at chunks of images stand from an earlier attempt"] if after else []
    assert told[: len(looks)] == looks and len(told) == len(looks) + bool(adopted)


def test_an_earlier_shard_of_other_images_is_not_adopted(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, config, cluster=Dying(12))
    for number in range(4):
        (tmp_path / "user" / "class-2" / f"{number:03d}.png").unlink()
    plain = contents(ingest(tmp_path, config, node="plain"))
    assert contents(ingest(tmp_path, config, attempt="a2", earlier=("a1",))) == plain


def test_an_image_that_changes_underway_is_told(config, tmp_path, monkeypatch):
    choose = run_module.choose

    def change(*args):
        write(tmp_path / "user/class-2/003.png", (tmp_path / "user/class-2/004.png").read_bytes())
        return choose(*args)

    monkeypatch.setattr(run_module, "choose", change)
    with pytest.raises(StageError, match=r"class-2/003\.png.*changed while it was ingested"):
        ingest(tmp_path, config)


def test_a_stop_ends_between_tasks(config, tmp_path):
    ctx = make_context(tmp_path, "shards", IngestResources())
    ctx.fence.stop("SIGTERM")
    with pytest.raises(Stopped, match="SIGTERM"):
        run(IngestConfig.model_validate(config), Inputs({}), ctx)
    assert not (tmp_path / "store/test/shards/a1/manifest.json").exists()


def test_seed_changes_the_order_only(config, tmp_path):
    def keys_and_sources(node, seed):
        shards = ingest(tmp_path, {**config, "shuffle_seed": seed}, node=node)
        indexes = [shards.read_json(entry.index) for entry in load_manifest(shards).of("train")]
        return [source for index in indexes for source in index["source"]]

    first, second = keys_and_sources("one", 0), keys_and_sources("two", 1)
    assert first != second and sorted(first) == sorted(second)
    assert first != sorted(first)


def test_shards_are_cut_by_bytes(config, tmp_path):
    del config["images_per_shard"]
    shards = ingest(tmp_path, {**config, "shard_bytes": 10_000, "splits": {"train": 1.0}})
    entries = load_manifest(shards).shards
    assert len(entries) > 3
    assert all(entry.bytes <= 10_000 + 10_240 for entry in entries)  # a tar is padded to 10240
    assert len(load_manifest(ingest(tmp_path, {**config, "splits": {"train": 1.0}}, node="one")).shards) == 1


def test_a_damaged_earlier_shard_is_not_taken_over(config, tmp_path):
    plain = contents(ingest(tmp_path, config))
    a1 = tmp_path / "store/test/shards/a1"
    first, second, third, fourth = sorted(a1.glob("*.index"))[:4]
    tar = first.with_suffix(".tar")
    for path, change in (
        (tar, lambda data: data[:600] + bytes([data[600] ^ 1]) + data[601:]),
        (second, lambda data: b"\x7b\xff" + data[2:]),  # no UTF-8
        (third, lambda data: data.replace(b'"width":[20', b'"width":[21')),  # reads well
        (fourth.with_suffix(".tar"), lambda data: data[:-512]),
    ):
        was = path.read_bytes()
        path.write_bytes(change(was))
        assert path.read_bytes() != was
    (a1.parent / "record.json").unlink()
    resumed = ingest(tmp_path, config, attempt="a2", earlier=("a1",))
    assert contents(resumed) == plain
    anew = {file.path for file in resumed.files if file.path.endswith(".tar") and file.at.startswith("a2/")}
    assert anew == {path.with_suffix(".tar").name for path in (first, second, third, fourth)}
    events = CollectedEvents(tmp_path / "local/shards/events.jsonl")
    notes = [text for text in events.of("note") if text.startswith("not taken over, but written anew: ")]
    assert len(notes) == 4 and f"a1/{tar.name} has SHA-256" in "".join(notes)
