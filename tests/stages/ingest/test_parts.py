"""An ingest in parts of any size: the same bytes as in one, and the choices of plain code."""

import hashlib
import io
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import plain_choice
import planted_images as planted
import pytest
from class_tars import class_folder, class_tars, outer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inprocess import CollectedEvents, commit, make_context
from lookalikes import copies, jpeg, scene
from photos import contents, encoded, ingest, photo_folder, picture, write
from plain_choice import planned, without_duplicates
from small_parts import small_parts
from tars import tars
from test_ingest_determinism import Dying, Shuffled
from test_ingest_parquet import jpegs, parquet

from vitpipe.infra.errors import IntegrityError, StageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.plan.fingerprint import encode
from vitpipe.pipeline.store.garbage import garbage
from vitpipe.stages.contract import Inputs
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.choose import keep
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.draw import unit_hash
from vitpipe.stages.ingest.listing import FileDamage
from vitpipe.stages.ingest.lists.listed import list_source
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.scan import ScanTask, SoundImage, scan
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.parts.made import Parts
from vitpipe.stages.ingest.run import run
from vitpipe.stages.ingest.write.writer import write_shard

names = st.text("ab/!.@~", min_size=1, max_size=4) | st.sampled_from(["\udcff", "\udc80x", "é", "\ue000", "𝄞"])
images = st.builds(
    planted.Planted,
    names,
    st.integers(0, 4),
    st.sampled_from([0, 0, 9, None]),
    st.integers(0, 2),
    st.sampled_from([None, "train", "test", "val"]),
    st.sampled_from(["", "", "", "no label"]),
)
parts = st.fixed_dictionaries({"part": st.integers(1, 7), "sheet": st.integers(1, 3), "chunk": st.integers(1, 4)})
cuts = st.sampled_from([{"images_per_shard": 2}, {"images_per_shard": 3}, {"shard_bytes": 1}, {"shard_bytes": 5000}])
splits = st.sampled_from(["folders", {"a": 0.3, "b": 0.5, "c": 0.2}, {"train": 1.0}])
taken = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 9),
        "subset": st.builds(dict, fraction=st.sampled_from([0.4, 0.8]), seed=st.integers(0, 2)),
    },
)
damage = st.sampled_from([(), (FileDamage("a", "cut", 2),), (FileDamage("", "cut"), FileDamage("~", "cut"))])


def coarse_hash(*parts):
    """Many images have the same, so that names decide."""
    return round(unit_hash(*parts), 1)


def made(folder, config, excluded, patch):
    """Files and events of a run, and what they are named in the manifest."""
    ctx = make_context(folder, "shards", IngestResources())
    patch.setattr(run_module, "excluded_contents", lambda inputs: excluded)
    patch.setattr(keep, "unit_hashes", lambda word, seed, names: (coarse_hash(word, seed, name) for name in names))
    try:
        shards = run(config, Inputs({}), ctx)
    except StageError as error:
        return str(error), CollectedEvents(ctx.events.path).all()
    found = {file.path: ctx.out.node.read(file.at) for file in shards.files}
    return found, CollectedEvents(ctx.events.path).all(), shards.facts()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(images, min_size=1, max_size=24), st.sampled_from(["hand", "stream", "files"]), parts, cuts, splits, taken,
    st.booleans(), st.sets(st.integers(0, 4), max_size=2), damage,
)  # fmt: skip
def test_any_parts_give_what_one_gives_and_plain_code(
    tmp_path_factory, rows, form, small, cut, splits, taken, exact, barred, findings
):
    if form != "files":
        rows = list({one.name: one for one in rows}.values())
    opened = {
        "hand": lambda: planted.AtHand, "stream": lambda: planted.Streamed, "files": lambda: planted.in_files,
    }[form]()(tuple(rows), findings)  # fmt: skip
    source = planted.PlantedSource.model_construct(opened=opened, kind="planted", limit=None, subset=None)
    settings_of = IngestConfig.model_validate({"source": {"kind": "digits", **taken}}).source
    source = source.model_copy(update={"limit": settings_of.limit, "subset": settings_of.subset})
    asked = {"source": {"kind": "folder", "root": "/nowhere"}, "splits": splits, "shuffle_seed": 3, **cut}
    config = IngestConfig.model_validate({**asked, "deduplicate": {"exact": exact}, "bad_image_budget": 99})
    config = config.model_copy(update={"source": source})
    excluded = {planted.content_of(number): f"uri#{number}" for number in barred}
    folder = tmp_path_factory.mktemp("parts")
    listing = source.part(opened.listing())
    if not listing.items:
        return
    with pytest.MonkeyPatch.context() as patch:
        one = made(folder / "one", config, excluded, patch)
    with pytest.MonkeyPatch.context() as patch:
        small_parts(patch, **small)
        many = made(folder / "many", config, excluded, patch)
    assert many == one
    check_against_plain_code(one, opened, listing, config, excluded, folder)


def check_against_plain_code(one, opened, listing, config, excluded, folder):
    items = list(listing.items)
    seen = scan(ScanTask(0, opened, items, Spool(folder)))
    sound = [Image(item, each) for item, each in zip(items, seen, strict=True) if isinstance(each, SoundImage)]
    bad = [(item.name, each.reason) for item, each in zip(items, seen, strict=True) if not isinstance(each, SoundImage)]
    bad = sorted([*bad, *((each.name, each.reason) for each in listing.findings)], key=lambda each: each[0])
    dropped = []
    if config.deduplicate.exact or excluded:
        sound, dropped = without_duplicates(sound, excluded)
    if not sound:
        assert f"none of its {len(items)} images is left" in one[0]
        return
    files = one[0]
    assert files["quarantine.jsonl"] == lines({"source": name, "reason": reason} for name, reason in bad)
    assert files["duplicates.jsonl"] == lines(each.row() for each in dropped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_choice, "unit_hash", coarse_hash)
        plans = planned(sound, config)
    assert {path for path in files if path.endswith(".tar")} == {path for path, _, _ in plans}
    for path, first, members in plans:
        index = json.loads(files[path.replace(".tar", ".index")])
        split = path.rpartition("-")[0]
        assert index["key"] == [f"{split}-{first + row:09d}" for row in range(len(members))]
        assert index["source"] == [image.item.name for image in members]
        assert index["sha256s"] == [image.seen.sha256 for image in members]
        assert index["labels"] == [list(image.item.labels) for image in members]
    manifest = json.loads(files["manifest.json"])
    assert manifest["source"]["listing_sha256"] == listing.sha256
    assert [shard["path"] for shard in manifest["shards"]] == [path for path, _, _ in plans]
    told = [len(items), len(bad), len(dropped)]
    assert [manifest["source"][name] for name in ("listed", "quarantined", "duplicates")] == told


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A folder of images whose ingest did all but the last of its shards, in small parts."""
    small_parts(monkeypatch)
    root = photo_folder(tmp_path / "user", per_class=6)
    write(root / "class-0/bad.png", b"bad")
    write(root / "class-1/zzz.png", (root / "class-0/000.png").read_bytes())
    config = {"source": {"kind": "folder", "root": str(root)}, "images_per_shard": 4}
    plain = contents(ingest(tmp_path, config, node="plain"))
    monkeypatch.setattr(run_module, "write_shard", refusing)
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, config)
    monkeypatch.setattr(run_module, "write_shard", write_shard)
    return config, plain


def refusing(task):
    if task.plan.path == "train-000002.tar":
        raise KeyboardInterrupt
    return write_shard(task)


def again(tmp_path, config, attempt=2):
    earlier = tuple(f"a{number}" for number in range(attempt - 1, 0, -1))
    return ingest(tmp_path, config, attempt=f"a{attempt}", earlier=earlier)


def all_parts(tmp_path, attempt, *kinds):
    folders = [tmp_path / f"store/test/shards/{attempt}/parts/{kind}" for kind in kinds]
    return sorted(path for folder in folders for path in folder.glob("*"))


KINDS = ("listing", "spread", "seen", "content", "kept", "ordered")


def test_a_restart_makes_no_part_anew(begun, tmp_path):
    config, plain = begun
    assert all(all_parts(tmp_path, "a1", kind) for kind in KINDS)
    resumed = again(tmp_path, config)
    assert contents(resumed) == plain
    assert not all_parts(tmp_path, "a2", *KINDS)
    assert {file.at.split("/")[0] for file in resumed.files if file.path.endswith(".tar")} == {"a1", "a2"}
    told = CollectedEvents(tmp_path / "local/shards/events.jsonl").of("resumed")
    assert len(told) == 2 and "looks at chunks of images stand from an earlier attempt" in told[0]


def test_shards_of_a_version_without_parts_are_taken_over(begun, tmp_path):
    config, plain = begun
    shutil.rmtree(tmp_path / "store/test/shards/a1/parts")
    resumed = again(tmp_path, config)
    assert contents(resumed) == plain and any(file.at.startswith("a1/") for file in resumed.files)


def test_a_source_that_changed_is_not_mixed_with_what_was_seen(begun, tmp_path):
    config, _ = begun
    write(tmp_path / "user/class-2/003.png", encoded(picture(77), "PNG"))  # another size: another listing
    (tmp_path / "user/class-2/004.png").unlink()
    plain = contents(ingest(tmp_path, config, node="other"))
    assert contents(again(tmp_path, config)) == plain


def test_an_image_replaced_under_its_old_time_is_seen_anew_after_it_was_told(begun, tmp_path):
    """Equal name, size and time: the look is taken over, its digest is found wrong, and the next attempt looks anew."""
    config, plain = begun
    index = json.loads(plain["train-000002.index"])
    path = tmp_path / "user" / index["source"][1]
    was, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + b"!")  # behind the last chunk's check: still an image
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(StageError, match="changed while it was ingested"):
        again(tmp_path, config)
    assert contents(again(tmp_path, config, 3)) == contents(ingest(tmp_path, config, node="other"))


@pytest.mark.parametrize("kind", ["listing", "seen", "content", "kept", "ordered"])
def test_a_damaged_part_is_told_and_made_anew(begun, tmp_path, kind):
    config, plain = begun
    for path in all_parts(tmp_path, "a1", *KINDS):  # so that the next ones are made from what is damaged
        if path.parent.name != kind and path.suffix == ".json" and KINDS.index(path.parent.name) > KINDS.index(kind):
            path.unlink()
    for path in all_parts(tmp_path, "a1", kind):
        if path.suffix == ".rows":
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 1]) + data[len(data) // 3 + 1 :])
    with pytest.raises(IntegrityError, match=r"read table \d+ of .*parts/.*it is damaged"):
        again(tmp_path, config)
    assert contents(again(tmp_path, config, 3)) == plain


def test_facts_that_are_cut_are_found_out_anew(begun, tmp_path):
    config, plain = begun
    for path in all_parts(tmp_path, "a1", *KINDS):
        if path.suffix == ".json":
            path.write_bytes(path.read_bytes()[:-3])
    assert contents(again(tmp_path, config)) == plain
    assert all_parts(tmp_path, "a2", "seen")


@pytest.mark.parametrize("form", [planted.AtHand, planted.Streamed])
def test_the_inventory_is_that_of_one_piece(form, tmp_path, monkeypatch):
    """As numpy writes it, to the byte, so that what is committed stays what it was."""
    small_parts(monkeypatch)
    rows = tuple(planted.Planted(f"{number:02d}\udcff", number, 0, 0) for number in range(11))
    opened = form(rows)
    whole = opened.inventory(opened.listing())
    ctx = make_context(tmp_path, "shards", IngestResources())
    source = planted.PlantedSource.model_construct(opened=opened, kind="planted", limit=None, subset=None)
    config = IngestConfig.model_validate({"source": {"kind": "digits"}}).model_copy(update={"source": source})
    found = list_source(opened, config, ctx, Parts(ctx)).inventory.streamed()
    written = io.BytesIO()
    found.write(written)
    assert written.getvalue() == replace(whole, unit=found.unit).encode()
    names, ends = whole.names.columns()
    about = json.dumps({"schema": 1, "unit": found.unit, "texts": {}}).encode()
    plain = io.BytesIO()
    np.savez_compressed(plain, names=names, ends=ends, sizes=whole.sizes, about=np.frombuffer(about, dtype=np.uint8))
    assert written.getvalue() == plain.getvalue()


def sources(folder):
    """A small one of each kind that may be large."""
    photos = class_folder(folder / "photos", each=5)
    write(photos / "n00000001/bad.jpg", b"bad")
    tables = folder / "tables"
    for number in range(2):
        parquet(tables / f"{number}.parquet", jpegs(10 * number, 9), [row % 3 for row in range(9)], group=4)
    return {
        "folder": {"kind": "folder", "root": str(photos)},
        "unlabelled": {"kind": "folder", "root": str(photos), "labels": "none", "subset": {"fraction": 0.7}},
        "webdataset": {"kind": "webdataset", "urls": str(tars(folder / "tars")), "limit": 11},
        "parquet": {"kind": "parquet", "urls": str(tables)},
        "class_tars": {"kind": "class_tars", "urls": str(class_tars(photos, folder / "classes"))},
        "tree": {"kind": "class_tars", "urls": str(outer(photos, folder / "tree.tar", "data/images")), "limit": 9},
    }


@pytest.mark.parametrize("kind", ["folder", "unlabelled", "webdataset", "parquet", "class_tars", "tree"])
def test_every_kind_of_source_in_small_parts(tmp_path, monkeypatch, kind):
    asked = {"source": sources(tmp_path / "in")[kind], "images_per_shard": 4, "splits": {"train": 0.7, "test": 0.3}}
    one = contents(ingest(tmp_path, asked, node="one"))
    small_parts(monkeypatch)
    many = ingest(tmp_path, asked, node="many", cluster=Shuffled(1))
    assert contents(many) == one
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, asked, node="killed", cluster=Dying(11))
    assert contents(ingest(tmp_path, asked, node="killed", attempt="a2", earlier=("a1",))) == one


def test_look_alikes_in_small_parts(tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path / f"held/class-{number % 2}/{number}.jpg", jpeg(scene(1000 + number)))
        for kind, data in list(copies(scene(1000 + number)))[:3]:
            write(tmp_path / f"in/class-{number % 2}/{kind}-{number}.jpg", data)
        for quality in (92, 80):
            write(tmp_path / f"in/class-{number % 2}/own-{number}-{quality}.jpg", jpeg(scene(2000 + number), quality))
    held = ingest(
        tmp_path, {"source": {"kind": "folder", "root": str(tmp_path / "held")}, "splits": {"test": 1.0}}, "held"
    )
    asked = {"source": {"kind": "folder", "root": str(tmp_path / "in")}, "deduplicate": {"near": {"hamming": 4}}}
    one = contents(ingest(tmp_path, asked, node="one", exclude=[held]))
    kinds = [json.loads(line)["of"] for line in one["duplicates.jsonl"].splitlines()]
    assert any("://" in of for of in kinds) and any("own-" in of for of in kinds)
    small_parts(monkeypatch)
    assert contents(ingest(tmp_path, asked, node="many", exclude=[held], cluster=Shuffled(2))) == one
    other = {**asked, "deduplicate": {"exact": False, "near": {"hamming": 4}}, "splits": {"a": 0.5, "b": 0.5}}
    many = contents(ingest(tmp_path, other, node="other"))
    monkeypatch.undo()
    assert contents(ingest(tmp_path, other, node="other-one")) == many


def test_parts_are_garbage_once_the_shards_are_there(begun, tmp_path):
    config, _ = begun
    recipe = {"stage": "ingest", "config": config, "node": "done"}
    header = {"recipe": recipe, "fingerprint": hashlib.sha256(encode(recipe)).hexdigest(), "inputs": {}}
    ctx = make_context(tmp_path, "done", IngestResources(), header=header)
    store = open_store(f"file://{tmp_path}/store").child("test")
    found = commit(ctx, run(IngestConfig.model_validate(config), Inputs({}), ctx), stage="ingest", config=config)
    shutil.rmtree(tmp_path / "store/test/shards")  # an attempt without a recipe
    shutil.rmtree(tmp_path / "store/test/plain")
    gone = {one.path for one in garbage(store, unfinished=False)}
    there = {entry.path for entry in store.list("done/a1/parts/")}
    assert there and there <= gone and not gone & {f"done/{file.at}" for file in found.files}


@pytest.mark.s3
def test_parts_in_a_bucket(s3_uri, tmp_path, monkeypatch):
    asked = {"source": sources(tmp_path / "in")["tree"], "images_per_shard": 4}
    one = contents(ingest(tmp_path, asked))
    small_parts(monkeypatch)
    ctx = make_context(tmp_path, "there", IngestResources(), store_uri=s3_uri)
    found = run(IngestConfig.model_validate(asked), Inputs({}), ctx)
    assert {file.path: ctx.out.node.read(file.at) for file in found.files} == one
