"""A step's manifest vouches for itself, and steps are found newest first over attempts."""

from pathlib import Path

import pytest

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.training.checkpoint.committed_steps import (
    Keep,
    StepFile,
    StepManifest,
    StepPlace,
    committed,
    unmarked,
)
from vitpipe.stages.training.seeds import key

MANIFEST = StepManifest(
    step=4, samples_seen=64, world_size=2, zero=1, precision="fp32", micro_batch=8,
    files=(StepFile(path="step-4/state/a.pt", bytes=3, sha256="0" * 64),),
).sealed()  # fmt: skip


def test_a_sealed_manifest_reads_back() -> None:
    assert StepManifest.parse(MANIFEST.encoded(), "it") == MANIFEST


@pytest.mark.parametrize(("old", "new"), [(b'"zero": 1', b'"zero": 2'), (b'"step": 4', b'"stop": 4'), (b"{", b"")])
def test_a_touched_manifest_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(IntegrityError):
        StepManifest.parse(MANIFEST.encoded().replace(old, new), "it")


@pytest.mark.parametrize(("schema", "told"), [(1, "schema 1 is of DeepSpeed's own files"), (3, "by a newer vitpipe")])
def test_another_schema_is_refused_by_name(schema: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        StepManifest.parse(MANIFEST.encoded().replace(b'"schema": 2', f'"schema": {schema}'.encode()), "it")


def test_steps_are_found_newest_first_and_only_where_a_manifest_stands(tmp_path: Path) -> None:
    node = open_store(f"file://{tmp_path}")
    for path in ("a1/step-4/manifest.json", "a1/step-20/manifest.json", "a2/step-4/manifest.json", "a2/step-30/x.pt"):
        node.write(path, MANIFEST.encoded())
    node.write("a10/step-99/manifest.json", b"of another recipe")
    places = committed(node, ("a2", "a1"))
    assert [(place.attempt, place.step) for place in places] == [("a1", 20), ("a2", 4), ("a1", 4)]
    assert places[1].read(node) == MANIFEST
    with pytest.raises(IntegrityError, match="step 4"):
        StepPlace(attempt="a1", step=20).read(node)


def test_a_step_that_was_marked_is_found_without_its_manifest(tmp_path: Path) -> None:
    node = open_store(f"file://{tmp_path}")
    for path in ("a1/step-4/manifest.json", "a1/committed/step-4", "a1/committed/step-20", "a2/committed/x"):
        node.write(path, b"")
    found = committed(node, ("a2", "a1"), lost=True)
    assert [(place.attempt, place.step) for place in found] == [("a1", 20), ("a1", 4)]
    assert [place.step for place in committed(node, ("a2", "a1"))] == [4]
    assert unmarked(node, ("a2", "a1")) == []


def test_steps_that_lack_their_mark_are_found(tmp_path: Path) -> None:
    node = open_store(f"file://{tmp_path}")
    for path in (
        "a1/step-4/manifest.json",
        "a1/committed/step-4",
        "a1/step-8/manifest.json",
        "a2/step-4/manifest.json",
    ):
        node.write(path, b"")
    assert [(place.attempt, place.step) for place in unmarked(node, ("a2", "a1"))] == [("a1", 8), ("a2", 4)]


def test_what_is_kept_no_longer() -> None:
    def surplus(keep: Keep, *places: tuple[str, int]) -> list[tuple[str, int]]:
        found = keep.surplus([StepPlace(attempt=attempt, step=step) for attempt, step in places])
        return [(one.attempt, one.step) for one in found]

    newest = (("a2", 40), ("a2", 30), ("a1", 30), ("a1", 20), ("a1", 10))
    assert surplus(Keep(2), *newest) == [("a1", 30), ("a1", 20), ("a1", 10)]
    assert surplus(Keep(1, milestone_steps=20), *newest) == [("a2", 30), ("a1", 30), ("a1", 10)]
    assert surplus(Keep(9), *newest) == [("a1", 30)]


def test_files_of_a_step_lie_in_its_attempt() -> None:
    files = StepPlace(attempt="a3.1", step=4).files(MANIFEST)
    assert [(file.path, file.at) for file in files] == [
        ("step-4/manifest.json", "a3.1/step-4/manifest.json"),
        ("step-4/state/a.pt", "a3.1/step-4/state/a.pt"),
    ]


def test_keys_tell_parts_apart_and_never_change() -> None:
    assert key("a", 1) == 0x135F17A475A61AFD
    assert len({key("a", 1), key("a", "1"), key("a1"), key("a", 1, 0)}) == 4
