"""Every remedy that names a deletion, a move or a replacement is known here, and following it loses nothing.

`tests/faults/test_damaged_runs.py` follows those of a damaged run file by file; the others are followed below.
"""

import ast
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
from fake_clock import FakeClock
from photos import indexes
from tiny_stages import tiny_spec, tiny_ways

from vitpipe.infra.errors import DriftError, IntegrityError
from vitpipe.pipeline.drive.gc import gc
from vitpipe.pipeline.drive.runner import run
from vitpipe.stages.images.split import Split

ROOT = Path(__file__).parents[3]
NAMES_ONE = re.compile(r"(?:^|\b(?:or|and|then) |[,;] )(?:remove|delete|discard|erase|wipe|move|overwrite)\b|--replace")
KNOWN = {
    "infra/lease_state.py": {
        "make sure that no driver runs, then delete that file: the next run takes a fence above all attempts": (
            "test_a_lost_lease_is_taken_above_all_attempts_and_that_is_the_remedy_for_a_damaged_one"
        )
    },
    "pipeline/store/attempts.py": {
        "restore it from a copy, or move ": "an attempt that no record names: the drill",
        "restore it from a copy, or remove ": "attempt.json alone, where a record says the same: the drill",
    },
    "pipeline/plan/decide.py": {
        "--replace ": "test_a_replacement_keeps_what_the_old_record_names",
        "write the commit that was taken behind the `@` to go on with it, or run with --replace ": (
            "test_a_revision_that_moved_is_8_and_the_commit_that_was_taken_goes_on"
        ),
    },
    "infra/storage/hub_push.py": {
        "push to another repository, or with --replace: what was there stays in the repository's history": (
            "test_what_others_wrote_there_is_not_overwritten"
        )
    },
    "pipeline/cli/slurm_job.py": {" --replace ": "no remedy: what was typed, passed on to the job"},
    "pipeline/store/records.py": {
        "choose another `name`, or run again with --replace ": "as that of the plan; the old record is kept"
    },
    "stages/evaluate/features.py": {
        "remove the run's folder _shared and go on": "test_what_nodes_share_is_named_by_no_record"
    },
    "stages/images/split.py": {"remove the cached ": "test_a_damaged_cache_is_removed_and_filled_again"},
    "stages/convert/config.py": {" are given: remove all but one": "fields of a YAML"},
    "stages/finetune/config.py": {
        "config.model is for training from scratch, but weights are given: remove one of them": "fields of a YAML"
    },
    "stages/pretrain/config.py": {
        "`init` begins anew with given parameters, `continue` goes on with a training: remove one of them": "inputs"
    },
    "stages/pretrain/run.py": {"remove one of them": "inputs of a YAML"},
    "stages/ingest/sources/folder_layout.py": {
        "move them, or name `labels`": "images, to where they are looked for",
    },
    "pipeline/library/conversion.py": {"give a new folder, or move those away": "moved, not removed, by a person"},
    "infra/events.py": {"delete it": "an event: no record names one"},
}


def remedies() -> Iterator[tuple[str, str]]:
    for path in (path for root in ("pipeline", "stages", "infra") for path in (ROOT / root).rglob("*.py")):
        tree = ast.parse(path.read_text())
        prose = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
        for one in ast.walk(tree):
            text = one.value if isinstance(one, ast.Constant) and id(one) not in prose else None
            if isinstance(text, str) and " " in text and NAMES_ONE.search(text):
                yield str(path.relative_to(ROOT)), text


def test_every_remedy_that_names_a_deletion_or_a_replacement_is_known() -> None:
    unknown = [(path, text) for path, text in remedies() if text not in KNOWN.get(path, {})]
    assert not unknown, "prove that following it loses nothing that a record names, and write it down here"
    assert NAMES_ONE.search("restore it, or remove it and run again")


NODES: dict[str, Any] = {"a": {"value": 2}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}}


def drive(folder: Path, nodes: dict[str, Any], *replacing: str) -> None:
    run(tiny_spec(folder, nodes), replacing, tiny_ways(clock=FakeClock().clock))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json") if "/a1/" in str(path)}


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def test_a_replacement_keeps_what_the_old_record_names(tmp_path: Path) -> None:
    drive(tmp_path, NODES)
    changed = {**NODES, "a": {"value": 5}}
    with pytest.raises(DriftError) as told:
        drive(tmp_path, changed)
    before, record = contents(tmp_path), (tmp_path / "runs/tiny/a/record.json").read_bytes()
    drive(tmp_path, changed, *re.findall(r"--replace (\S+)", told.value.do))
    for unfinished in (False, True):
        gc(f"file://{tmp_path}/runs/tiny", unfinished, clock=FakeClock().clock)
    assert {path: data for path, data in contents(tmp_path).items() if path in before} == before
    assert (tmp_path / "runs/tiny/a/record.1.json").read_bytes() == record


def test_what_nodes_share_is_named_by_no_record(tmp_path: Path) -> None:
    drive(tmp_path, NODES)
    (tmp_path / "runs/tiny/_shared/x/a1").mkdir(parents=True)
    before = contents(tmp_path)
    shutil.rmtree(tmp_path / "runs/tiny/_shared")
    assert gc(f"file://{tmp_path}/runs/tiny", clock=FakeClock().clock).paths == ()
    drive(tmp_path, NODES)
    assert contents(tmp_path) == before


def test_a_damaged_cache_is_removed_and_filled_again(tmp_path: Path) -> None:
    shards = synthetic.shards(tmp_path)
    store, cache = tmp_path / "store", tmp_path / "cache"
    wanted = Split(shards, "train", cache).pixels(7)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    (tar,) = cache.rglob("*.tar")
    data = bytearray(tar.read_bytes())
    row = indexes(Split(shards, "train", cache))[0]
    data[row.offset[7] : row.offset[7] + row.size[7]] = bytes(row.size[7])
    with tar.open("r+b") as file:
        file.write(data)
    with pytest.raises(IntegrityError, match="not those ingested") as told:
        Split(shards, "train", cache).pixels(7)
    named = re.search(r"emove the cached (\S+) and run again", str(told.value))
    assert named and not store.is_relative_to(named[1])
    shutil.rmtree(named[1])
    assert (Split(shards, "train", cache).pixels(7) == wanted).all()
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
