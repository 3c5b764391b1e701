"""The join of data and a head: by name, before any image is read; what cannot be joined is refused with both lists."""

import json
from pathlib import Path

import pytest
import synthetic
from inprocess import InProcessCluster, commit, make_context
from official_files import official, write_images

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.estimate import estimate
from vitpipe.stages.evaluate.run import run
from vitpipe.stages.images.class_match import ALL_NUMBERS, join, matched
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run as run_ingest

CONFIG = EvaluateConfig(method="classify")
HEAD = {0: "ant", 1: "crane", 2: "bee", 3: "crane", 4: "cat"}


def evaluate(tmp_path: Path, data: Artifact, weights: Artifact, node: str = "score") -> tuple[Score, list[str]]:
    ctx = make_context(tmp_path, node, EvaluateResources())
    return run(CONFIG, Inputs({"data": [data], "weights": [weights]}), ctx), ctx.events.of("note")


def plan(data: Artifact | Estimate, weights: Artifact | Estimate) -> Estimate:
    return estimate(CONFIG, EvaluateResources(), {"data": [data], "weights": [weights]}, Known())


def test_numbers_are_found_by_name_in_whatever_order() -> None:
    assert matched("d", ("bee", "ant"), "w", HEAD).outputs == (2, 0)
    assert matched("d", ("cat",), "w", dict(reversed(HEAD.items()))).outputs == (4,)
    assert matched("d", ("0", "1"), "w", {0: "1", 1: "0"}).note == ALL_NUMBERS
    for names, found in (
        (("bee", "Ant"), "1 of 2 classes are unknown to the weights, 'Ant' for one; only the data have 'Ant', only the "
                         r"weights 'ant', 'crane', 'cat' \('Ant' is nearly 'ant'\)"),
        (("bee", "crane"), r"'crane' is the name of the weights' classes \[1, 3\]: which is meant"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=found):
            matched("d", names, "w", HEAD)
    with pytest.raises(UsageError, match="the weights name none of their classes, the data have 1: 'ant'"):
        matched("d", ("ant",), "w", {})


def test_what_cannot_be_joined_is_refused_before_a_feature_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InProcessCluster, "fan", lambda *_, **__: pytest.fail("a task was started"))
    data, weights = synthetic.shards(tmp_path), synthetic.weights(tmp_path, classes=3)
    for given in (data, Estimate(splits={"test": 9}, num_classes=3, class_names=("red", "green", "blue"))):
        with pytest.raises(UsageError, match="only the data have 'red', 'green', 'blue', only the weights 'class 0'"):
            plan(given, weights)
    with pytest.raises(UsageError, match="3 of 3 classes are unknown"):
        evaluate(tmp_path, data, weights)
    assert plan(Estimate(splits={"test": 9}, num_classes=3), weights).images == 9, "names not known: no word"


def test_numbers_without_names_are_joined_and_that_is_said(tmp_path: Path) -> None:
    data = synthetic.shards(tmp_path, classes=("0", "1", "2"))
    score, notes = evaluate(tmp_path, data, synthetic.weights(tmp_path, classes=3, names=("2", "1", "0")))
    assert notes == [ALL_NUMBERS] and score.num_test == 30


def test_reassessed_labels_number_imagenets_wordnet_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files have numbers alone: places among sorted ids, in whatever order a head has them."""
    root = tmp_path / "real"
    write_images(root, *(f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2)), kind="JPEG")
    (root / "real.json").write_text(json.dumps([[2, 5], [7]]))
    official(monkeypatch, "imagenet-real", root, {"test": 2})
    source = {"kind": "benchmark", "name": "imagenet-real", "root": str(root)}
    ctx = make_context(root, "shards", IngestResources())
    config = {"source": source}
    data = commit(ctx, run_ingest(IngestConfig.model_validate(config), Inputs({}), ctx), config=config)
    ids = [f"n{number:08d}" for number in range(1000)]
    weights = synthetic.weights(tmp_path, classes=1000, names=ids[::-1])
    match = join(data, weights)
    assert match is not None and match.outputs[:2] == (999, 998) and match.names == tuple(ids) and not match.note
    words = synthetic.weights(tmp_path, "words", classes=1000, names=[f"w{number}" for number in range(1000)])
    with pytest.raises(UsageError, match="1000 of 1000 classes are unknown"):
        join(data, words)
    other = synthetic.shards(tmp_path, "numbers", classes=[str(number) for number in range(1000)], counts={"test": 1})
    with pytest.raises(UsageError, match="1000 of 1000 classes are unknown"):
        join(other, weights)  # somebody's numbers, not the benchmark's
