"""Whatever one damaged file makes people type, no file that a record names is lost by it, and no code is wrong."""

import json
import os
import random
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from damaged_runs import DAMAGES, Case, Pristine, Specs, files_of
from fake_clock import FakeClock
from tiny_stages import HOOKS, tiny_spec, tiny_ways

from vitpipe.infra.errors import StageError
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.ingest.sources.inventory import INVENTORY

NODES: dict[str, Any] = {
    "data": {"value": 2},
    "net": {"stage": "train", "needs": {"shards": ("data",)}},
    "sum": {"stage": "add", "needs": {"shards": ("net",)}},
}
EITHER = ("lease.json", "stop.json")
"""A lease that cannot be read is told, one that can is believed: either way nothing is lost."""


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def expected(case: Case, verb: str) -> set[int]:
    """The exit codes that are right."""
    name = case.path.rpartition("/")[2]
    node = case.path.partition("/")[0]
    if case.path in EITHER or (name in EITHER and node == name):
        return {0, 8}
    if name == "record.json":
        return {8}
    if case.path in case.pristine.named:
        if verb.startswith("gc"):
            return {8} if case.damage != "flipped" or name == "manifest.json" or name.startswith("record.") else {0}
        if name == INVENTORY:
            return {8}  # read by whoever looks at the source
        return {8} if case.damage != "flipped" and case.path not in case.pristine.kept else {0}
    if case.path in case.pristine.headers:
        return {0}
    if name == "attempt.json" and verb.startswith("gc") and node != "_shared":  # that no record is of
        told_by_a_record = any(one.startswith(case.path.removesuffix(name)) for one in case.pristine.named)
        return {0} if case.damage == "removed" and told_by_a_record else {8}
    return {0}


def play(case: Case, rng: random.Random) -> None:
    case.begin(rng)
    assert (case.verify() is not None) is (case.path in case.pristine.named), f"{case.path} {case.damage}"
    told = []
    for verb, error in case.ends():
        code = error.code if error else 0
        assert code in expected(case, verb), f"{case.path} {case.damage}, then {verb}: {code}, {error}"
        assert "--replace" not in str(error), f"{case.path} {case.damage}, then {verb}: {error}"
        told += [error] if error else []
    for done in case.follow(told):
        for verb, after in case.ends():
            helped = after is None or not done.startswith(("restore", "remove", "move"))
            assert helped, f"{case.path} {case.damage}, {done}, then {verb}: {after}"
    shutil.rmtree(case.run.parent)


def play_all(tmp_path: Path, folder: Path, specs: Specs, seed: int, share: float = 1.0) -> int:
    """Damage each file in each way, or a share of them; how many cases that were."""
    rng, pristine = random.Random(seed), Pristine.of(folder)
    cases = [
        (path, damage)
        for path in files_of(folder)
        for damage in DAMAGES
        if damage == "removed" or (folder / path).stat().st_size  # of nothing, nothing can be changed
    ]
    chosen = rng.sample(cases, round(len(cases) * share))
    for number, (path, damage) in enumerate(chosen):
        play(Case(pristine, specs(tmp_path / str(number)), path, damage), rng)
    return len(chosen)


def fail(ctx: Any) -> None:
    raise StageError("train", "it is killed here")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run whose training went on in a second attempt, and whose last node was replaced once."""
    folder, ways = tmp_path / "pristine", lambda: tiny_ways(clock=FakeClock().clock)
    HOOKS["net"] = fail
    with pytest.raises(StageError):
        run(tiny_spec(folder, NODES), (), ways())
    HOOKS.clear()
    run(tiny_spec(folder, {**NODES, "sum": {**NODES["sum"], "times": 2}}), (), ways())
    run(tiny_spec(folder, NODES), ("sum",), ways())
    return folder / "runs" / "tiny"


@pytest.mark.parametrize("share", [0.2, pytest.param(1.0, marks=pytest.mark.drill)])
def test_every_file_of_a_finished_run_in_every_way(tmp_path: Path, finished: Path, share: float) -> None:
    assert play_all(tmp_path, finished, lambda folder: tiny_spec(folder, NODES), seed=1, share=share) > 110 * share


def as_before_seals(folder: Path) -> None:
    """Its records as an earlier version wrote them: without seals, each with the digests of what it took."""
    digests = {}
    for path in sorted(folder.rglob("record*.json"), key=lambda path: ("data", "net", "sum").index(path.parent.name)):
        old = path.read_bytes()
        fields = {**json.loads(old), "schema": 1}
        fields.pop("sha256", None)
        for ref in (ref for refs in fields["inputs"].values() for ref in refs):
            ref["record_sha256"] = digests[ref["record_sha256"]]
        new = json.dumps(fields, indent=1).encode()
        digests[sha256(old).hexdigest()] = sha256(new).hexdigest()
        path.write_bytes(new)
    for mark in folder.rglob("committed/done"):
        mark.unlink()


def test_a_flipped_bit_of_a_record_of_an_earlier_version_costs_nothing(tmp_path: Path, finished: Path) -> None:
    as_before_seals(finished)
    rng, pristine, codes = random.Random(4), Pristine.of(finished), Counter[int]()
    untouched = Case(pristine, tiny_spec(tmp_path / "whole", NODES), "data/progress.json", "removed")
    untouched.begin(rng)
    assert [error for _, error in untouched.ends()] == [None] * 4
    for number in range(36):
        path = f"{('data', 'net', 'sum')[number % 3]}/record.json"
        case = Case(pristine, tiny_spec(tmp_path / str(number), NODES), path, "flipped")
        case.begin(rng)
        for verb, error in case.ends():
            code = error.code if error else 0
            codes[code] += 1
            assert code in (0, 2, 8) and "--replace" not in str(error), f"{verb}: {error}"
            if path != "sum/record.json" and verb in ("gc", "run"):  # what nobody took has nothing to be held against
                assert code, f"{verb} believed a changed {path}"
    assert codes[8] > codes[2]


REAL = """
version: 1
name: real
store: {store}
nodes:
  glyphs:
    stage: ingest
    config: {{source: {{kind: glyphs, classes: 4, images_per_class: 16, image_px: 8}}, images_per_shard: 32,
              splits: {{train: 0.7, test: 0.3}}}}
  backbone:
    stage: pretrain
    needs: {{shards: glyphs}}
    config:
      model: {{variant: {{layers: 1, width: 16, mlp: 16, heads: 2, patch_px: 4}}, image_px: 8}}
      batch_images: 8
      total: 4 steps
      augment: {{crop: none, flip: false}}
      precision: fp32
    resources: {{micro_batch: 8, checkpoint_every: 1 steps, keep: 2}}
  weights: {{stage: convert, needs: {{checkpoint: backbone}}, config: {{formats: [native]}}}}
  transfer:
    stage: finetune
    needs: {{data: glyphs, weights: weights}}
    config: {{batch_images: 8, total: 2 steps, peak_lr: 0.03, image_px: 8, crop: none, flip: false, precision: fp32}}
  probe:
    stage: evaluate
    needs: {{data: glyphs, weights: weights}}
    config: {{method: fewshot, shots: [2], image_px: 8}}
  table: {{stage: report, needs: {{scores: [transfer, probe], checkpoint: backbone, weights: weights, shards: glyphs}}}}
"""


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_every_file_of_a_real_run_in_every_way(tmp_path: Path) -> None:
    def spec(folder: Path) -> Any:
        return load(REAL.format(store=f"file://{folder}/runs"))

    run(spec(tmp_path / "pristine"), (), tiny_ways())
    assert play_all(tmp_path, tmp_path / "pristine" / "runs" / "real", spec, seed=2) > 200
