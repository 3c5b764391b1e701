"""Data sets of the Hub: each kind of source gives the bytes that the same files give on a disk, at one commit."""

from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, tree
from photos import contents, encoded, ingest, photo_folder, picture
from tars import tars
from test_ingest_parquet import NAMES, jpegs, parquet

from vitpipe.infra.errors import UsageError
from vitpipe.stages.commits import read_commits
from vitpipe.stages.estimates import Known
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.drift import look
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.record import read_record


def of_kind(kind: str, folder: Path) -> tuple[dict[str, bytes], dict[str, Any], dict[str, Any]]:
    """Files as they stand on the Hub; the source's fields there and on the disk."""
    if kind == "folder":
        photo_folder(folder / "data", per_class=4)
        return tree(folder), {"root": "hf://me/set/data"}, {"root": str(folder / "data")}
    if kind == "parquet":
        for number in range(3):
            name = f"data/train-{number:05d}-of-00003.parquet"
            parquet(folder / name, jpegs(10 * number, 10), [row % 3 for row in range(10)])
        parquet(folder / "data/test-00000-of-00001.parquet", jpegs(90, 4), [0, 1, 2, 0])
        pattern = "data/train-{00000..00002}-of-00003.parquet"
    elif kind == "webdataset":
        tars(folder / "data")
        pattern = "data/*.tar"
    else:
        tars(folder / "data")
        pattern = "data"
    return tree(folder), {"urls": f"hf://datasets/me/set/{pattern}"}, {"urls": f"{folder}/{pattern}"}


@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset", "class_tars"])
def test_the_same_shards_as_from_the_same_files_on_a_disk(kind: str, hub: Hub, tmp_path: Path) -> None:
    files, there, here = of_kind(kind, tmp_path / "user")
    commit = hub.add("datasets", "me/set", {**files, "README.md": b"words", ".gitattributes": b"x"})
    more = {"images_per_shard": 5, "bad_image_budget": 100}
    found = ingest(tmp_path, {"source": {"kind": kind, **there}, **more}, node="there")
    assert contents(found) == contents(ingest(tmp_path, {"source": {"kind": kind, **here}, **more}, node="here"))
    assert found.commits == {"hf://datasets/me/set@main": commit}
    record, _ = read_record(found.uri)
    assert record.output["commits"] == found.commits
    assert read_commits(found.store(), record.attempt) == found.commits


def test_class_names_of_the_schema_and_of_a_file_beside(hub: Hub, tmp_path: Path) -> None:
    files, there, _ = of_kind("parquet", tmp_path / "user")
    hub.add("datasets", "me/set", {**files, "names.txt": b"eins\nzwei\ndrei\n"})
    source = {"kind": "parquet", **there}
    assert load_manifest(ingest(tmp_path, {"source": source}, node="schema")).classes == tuple(NAMES)
    source |= {"class_names": "hf://me/set/names.txt"}
    assert load_manifest(ingest(tmp_path, {"source": source}, node="file")).classes == ("eins", "zwei", "drei")


LABEL = """
  - name: label
    dtype:
      class_label:
        names:
          '0': eins
          '1': zwei
          '2': "drei"
"""
OTHER = LABEL.replace("eins", "uno")


@pytest.mark.parametrize(
    ("card", "classes"),
    [
        (f"---\ndataset_info:\n  features:\n  - name: image\n    dtype: image{LABEL}---\nwords",
         ("eins", "zwei", "drei")),
        (f"---\ndataset_info:\n- config_name: a\n  features:{LABEL}- config_name: b\n  features:{LABEL}---\n",
         ("eins", "zwei", "drei")),
        (f"---\ndataset_info:\n- config_name: a\n  features:{LABEL}- config_name: b\n  features:{OTHER}---\n", None),
        ("---\ndataset_info:\n  features:\n  - name: label\n    dtype: int64\n---\n", None),
        ("---\n: [\n---\n", None),
        ("no front matter", None),
        ("---\n", None),
    ],
)  # fmt: skip
def test_class_names_of_the_card_where_the_schema_has_none(
    card: str, classes: tuple[str, ...] | None, hub: Hub, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "train.parquet", jpegs(0, 6), [0, 1, 2, 0, 1, 2], metadata=None)
    hub.add("datasets", "me/set", {"data/train.parquet": path.read_bytes(), "README.md": card.encode()})
    shards = ingest(tmp_path, {"source": {"kind": "parquet", "urls": "hf://me/set"}})
    assert load_manifest(shards).classes == (classes or ("0", "1", "2"))


def test_only_what_is_needed_of_a_parquet_file_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    files, _, _ = of_kind("parquet", tmp_path / "user")
    hub.add("datasets", "me/set", files)
    ingest(tmp_path, {"source": {"kind": "parquet", "urls": "hf://me/set/data/test-*.parquet"}})
    assert not any("train" in asked for asked in hub.asked if "resolve" in asked)


def planned(**source: Any) -> Any:
    config = IngestConfig.model_validate({"source": source})
    return estimate(config, IngestResources(), {}, Known())


def test_a_plan_counts_a_parquet_set_and_refuses_what_is_not_there(hub: Hub, tmp_path: Path) -> None:
    files, there, _ = of_kind("parquet", tmp_path / "user")
    commit = hub.add("datasets", "me/set", files)
    counted = planned(kind="parquet", **there)
    assert f"hf://datasets/me/set@main is commit {commit}" in counted.notes
    assert (counted.images, counted.class_names) == (30, tuple(NAMES))
    for kind, urls, told in (
        ("parquet", "hf://me/nothing", "no such repository"),
        ("parquet", "hf://me/set@v9", "no such branch"),
        ("parquet", "hf://me/set/data/val-*.parquet", "no file of that name"),
        ("webdataset", "hf://me/set", r"nor one below it with .tar"),
    ):
        with pytest.raises(UsageError, match=told):
            planned(kind=kind, urls=urls)


def test_a_moved_revision_is_no_longer_what_was_taken(hub: Hub, tmp_path: Path) -> None:
    files, _, _ = of_kind("folder", tmp_path / "user")
    first = hub.add("datasets", "me/set", files)
    hub.repos["datasets", "me/set"].refs["v1"] = first
    config = {"source": {"kind": "folder", "root": "hf://me/set/data"}}
    shards = ingest(tmp_path, config)
    record, _ = read_record(shards.uri)

    def seen(root: str = "hf://me/set/data", digests: bool = False) -> Any:
        again = IngestConfig.model_validate({"source": {"kind": "folder", "root": root}})
        return look(again, IngestResources(), shards, record, digests)

    assert seen().is_same and seen(digests=True).is_same and not seen().changes
    hub.add("datasets", "me/set", {"README.md": b"a word more"})
    assert seen().is_moved and "no file that was taken differs" in seen().changes[0]
    second = hub.add("datasets", "me/set", {"data/class-0/000.png": encoded(picture(77), "PNG")})
    moved = seen()
    assert (
        moved.is_moved
        and "no file" not in moved.changes[0]
        and first in moved.changes[0]
        and second in moved.changes[0]
    )
    for pinned in (f"hf://me/set@{first}/data", "hf://me/set@v1/data"):
        assert seen(pinned).is_same and "ingested from" not in seen(pinned).note
    other = seen(f"hf://me/set@{second}/data")
    assert other.changes and not other.is_moved  # another revision was asked for: the recipe differs
    del hub.repos["datasets", "me/set"]
    assert not seen().changes and "not looked at" in seen().note


def test_all_is_read_at_the_commit_with_which_it_began(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _, _ = of_kind("folder", tmp_path / "user")
    first = hub.add("datasets", "me/set", files)
    from vitpipe.stages.ingest import run as run_module

    real = run_module.list_source

    def listed(*args: Any) -> Any:
        found = real(*args)
        hub.add("datasets", "me/set", dict.fromkeys(files, b"no image any more"))
        return found

    monkeypatch.setattr(run_module, "list_source", listed)
    found = ingest(tmp_path, {"source": {"kind": "folder", "root": "hf://me/set/data"}})
    assert found.splits == {"train": 12} and found.commits == {"hf://datasets/me/set@main": first}


def test_what_is_written_wrongly_is_told_by_validate() -> None:
    for source in (
        {"kind": "parquet", "urls": "hf://mnist"},
        {"kind": "folder", "root": "hf://datasets/mnist"},
        {"kind": "webdataset", "urls": "https://huggingface.co/datasets/me/set"},
        {"kind": "folder", "root": "hf://me/set", "labels": "hf://labels.csv"},
    ):
        with pytest.raises(ValueError, match=r"hf://"):
            IngestConfig.model_validate({"source": source})
