"""What the writer gets wrong never reaches the store: webdataset reads each shard before it is committed."""

import re
import sys

import pytest
from inprocess import make_context
from photos import ingest, photo_folder

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.images import readback as readback_module
from vitpipe.stages.ingest.choose import select as select_module
from vitpipe.stages.ingest.choose.select import ShardPlan
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run
from vitpipe.stages.ingest.write import writer as writer_module
from vitpipe.stages.ingest.write.shard import READ_BACK_SHARE, read_back_paths
from vitpipe.stages.ingest.write.ustar import header

SECOND = "train-000001.tar"


@pytest.fixture
def asked(tmp_path):
    root = photo_folder(tmp_path / "user", per_class=4)
    return {"source": {"kind": "folder", "root": str(root)}, "images_per_shard": 4, "splits": {"train": 1.0}}


def a_members_size(monkeypatch, name="train-000000005.png", by=1):
    def planted(member, size):
        return header(member, size + by * (member == name))

    monkeypatch.setattr(writer_module, "header", planted)


def a_members_size_by_blocks(monkeypatch):
    a_members_size(monkeypatch, by=1024)


def a_labels_size(monkeypatch):
    a_members_size(monkeypatch, "train-000000005.cls", -1)


def a_key_twice_in_the_tar(monkeypatch):
    names = {f"train-000000005.{ext}": f"train-000000004.{ext}" for ext in ("png", "cls")}
    monkeypatch.setattr(writer_module, "header", lambda member, size: header(names.get(member, member), size))


def a_key_twice_in_the_plan(monkeypatch):
    keys = select_module.ShardPlan.keys.fget
    monkeypatch.setattr(ShardPlan, "keys", property(lambda plan: [key.replace("05", "04") for key in keys(plan)]))


def a_label_beside_another_image(monkeypatch):
    """In the second shard, each has the label of the image before it."""
    made = []

    def planted(labels, multi_label, right=writer_module.label_members):
        made.append(right(labels, multi_label))
        return made[-2] if 4 < len(made) <= 8 else made[-1]

    monkeypatch.setattr(writer_module, "label_members", planted)


def an_offset(monkeypatch):
    def planted(task, file, right=writer_module._write_tar):
        offsets, *others = right(task, file)
        return [offset + 512 * (task.plan.path == SECOND) for offset in offsets], *others

    monkeypatch.setattr(writer_module, "_write_tar", planted)


def a_byte_on_the_disk(monkeypatch):
    def planted(task, file, right=writer_module._write_tar):
        offsets, *others = right(task, file)
        if task.plan.path == SECOND:
            file.seek(offsets[1] + 100)
            file.write(b"\x00\x01\x02")
        return offsets, *others

    monkeypatch.setattr(writer_module, "_write_tar", planted)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (a_members_size, r"the image 'train-000000005' has \d+ bytes, the index says \d+"),
        (a_members_size_by_blocks, r"'train-000000005' has the members png; it should have png and cls"),
        (a_labels_size, r"the label of 'train-000000005' is b''"),
        (
            a_key_twice_in_the_tar,
            r"webdataset gives up after 0 of 4 samples: train-000000004\.png: duplicate file name",
        ),
        (a_key_twice_in_the_plan, r"the index has the key 'train-000000004' more than once"),
        (a_label_beside_another_image, r"the label of 'train-00000000\d' is \[\d\], the index says \[\d\]"),
        (an_offset, r"the image 'train-000000004' begins at byte \d+, the index says \d+"),
        (a_byte_on_the_disk, r"the SHA-256 of the image 'train-000000005' is \w+, the index says"),
    ],
)
def test_a_planted_fault_in_the_writer_is_caught(asked, tmp_path, monkeypatch, plant, found):
    plant(monkeypatch)
    with pytest.raises(IntegrityError, match=rf"read {SECOND} of .* back with webdataset") as error:
        ingest(tmp_path, asked)
    assert re.match(found, error.value.found)
    written = {path.name for path in (tmp_path / "store").rglob("*.tar")}
    assert written == {"train-000000.tar", "train-000002.tar"}


def test_shards_whose_source_is_trusted_are_read_back_in_part(tmp_path, monkeypatch):
    """The first and the last of each split, and an eighth: what is planted in one of the others is not seen."""
    splits = {"train": 200, "test": 3}
    plans = [
        ShardPlan(f"{split}-{number:06d}.tar", split, 0, (), 0)
        for split, count in sorted(splits.items())
        for number in range(count)
    ]
    every = {plan.path for plan in plans}
    assert read_back_paths(plans, True, 0) == every
    some = read_back_paths(plans, False, 0)
    assert {f"{split}-{n:06d}.tar" for split, count in splits.items() for n in (0, count - 1)} < some < every
    assert abs(len(some) - 200 * READ_BACK_SHARE) < 15
    assert some == read_back_paths(plans[::-1], False, 0) != read_back_paths(plans, False, 1)


@pytest.mark.parametrize("check", ["decode", "structure"])
def test_what_is_read_back_is_told(asked, tmp_path, monkeypatch, check):
    shards = ingest(tmp_path, {**asked, "check": check, "images_per_shard": 1})
    plans = [ShardPlan(f"train-{number:06d}.tar", "train", 0, (), 0) for number in range(12)]
    expected = read_back_paths(plans, check == "decode", 0)
    assert shards.metrics["read_back"] == len(expected) and (len(expected) == 12) == (check == "decode")
    unread = sorted({plan.path for plan in plans} - expected)
    if unread:
        number = int(unread[0].removeprefix("train-").removesuffix(".tar"))
        a_members_size(monkeypatch, f"train-{number:09d}.png")
        ingest(tmp_path / "again", {**asked, "check": check, "images_per_shard": 1})


def test_without_webdataset_nothing_is_ingested(asked, tmp_path, monkeypatch):
    readback_module._loaded.cache_clear()
    for name in ("webdataset", "webdataset.autodecode", "webdataset.tariterators"):
        monkeypatch.setitem(sys.modules, name, None)
    ctx = make_context(tmp_path, "shards", IngestResources())
    with pytest.raises(ModuleNotFoundError, match="webdataset"):
        run(IngestConfig.model_validate(asked), Inputs({}), ctx)
    assert not list((tmp_path / "store").rglob("*.tar"))
