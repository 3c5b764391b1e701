"""An ingest in parts of any size: the same bytes as in one, and the choices of plain code."""

import json

import planted_images as planted
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inprocess import CollectedEvents, make_context
from plain_choice import planned, without_duplicates
from small_parts import small_parts

from vitpipe.infra.errors import StageError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.listing import FileDamage
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.scan import ScanTask, SoundImage, Spool, scan
from vitpipe.stages.ingest.run import run

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


def made(folder, config, excluded, patch):
    """Files and events of a run, and what they are named in the manifest."""
    ctx = make_context(folder, "shards", IngestResources())
    patch.setattr(run_module, "excluded_contents", lambda inputs: excluded)
    try:
        shards = run(config, Inputs({}), ctx)
    except StageError as error:
        return str(error), CollectedEvents(ctx.events.path).all()
    found = {file.path: ctx.out.node.read(file.at) for file in shards.files}
    return found, CollectedEvents(ctx.events.path).all(), shards.facts()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
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
