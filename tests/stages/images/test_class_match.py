"""The join of data and a head: by name, before any image is read; what cannot be joined is refused with both lists."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import synthetic
from inprocess import InProcessCluster, commit, make_context
from official_files import official, write_images
from pydantic import ValidationError
from torchvision.models._meta import _IMAGENET_CATEGORIES

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, Score, ShardSet
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.estimate import estimate
from vitpipe.stages.evaluate.run import run
from vitpipe.stages.images.class_match import ALL_NUMBERS, join, mapped, matched
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.wordnet import imagenet_ids, words_by_id
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY
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


ANIMALS = ("bee", "cat")
GERMAN = {0: "Katze", 1: "Biene", 2: "Kran", 3: "Kran"}


def test_a_map_says_what_the_weights_call_each_class() -> None:
    join_animals = partial(mapped, "d", ANIMALS, "w", GERMAN)
    assert join_animals({"cat": "Katze", "bee": "Biene"}).outputs == (1, 0)
    assert join_animals({"cat": "3", "bee": "1"}).outputs == (1, 3), "a number, where a name would be of two"
    for called, found in (
        ({"cat": "Katze"}, "it misses 1 of the data's 2 classes: 'bee'.*each class of the data stands in it"),
        ({"Bee": "Biene", "cat": "Katze"}, r"misses 1 of .*: 'bee' \('bee' is nearly 'Bee'\)"),
        ({"cat": "Katze", "bee": "Biene", "ant": "Ameise"}, "it names 'ant', which the data do not have"),
        ({"cat": "katze", "bee": "Biene"}, r"names 'katze', which the weights do not have; .*nearly 'Katze'"),
        ({"cat": "Kran", "bee": "Biene"}, r"'Kran' is the name of the weights' classes \[2, 3\]: which is meant"),
        ({"cat": "Katze", "bee": "0"}, "it gives 'Katze' twice, by name and by number"),
        ({"cat": "4", "bee": "0"}, "it names '4', which the weights do not have"),
    ):
        with pytest.raises(UsageError, match=found):
            join_animals(called)


@pytest.mark.parametrize(("given", "found"), [
    ({}, "it maps no class"), ({"cat": "Katze", "bee": "Katze"}, "'Katze' is given twice, for 'cat' and 'bee'"),
    ({"cat": True}, "not True"), ({"cat": None}, "not None"), ({"cat": ["a"]}, "names to names"),
    ("names.yaml", "give the mapping itself"), (["cat"], "valid"),
])  # fmt: skip
def test_a_map_that_is_none_is_refused_where_it_is_written(given: Any, found: str) -> None:
    with pytest.raises(ValidationError, match=found):
        EvaluateConfig(method="classify", class_map=given)


def test_a_map_belongs_to_heads_and_numbers_in_it_are_names() -> None:
    with pytest.raises(ValidationError, match="class_map belongs to methods classify and real; fewshot fits"):
        EvaluateConfig(method="fewshot", class_map={"cat": "Katze"})
    assert EvaluateConfig(method="real", class_map={7: 0}).called == {"7": "0"}


def test_weights_without_names_are_mapped_by_number(tmp_path: Path) -> None:
    data, nameless = synthetic.shards(tmp_path), synthetic.weights(tmp_path, classes=3, names=())
    with pytest.raises(UsageError, match=r"name none of their classes.*class_map.*or its number"):
        join(data, nameless)
    found = join(data, nameless, {"red": "2", "green": "0", "blue": "1"})
    assert found and found.outputs == (2, 0, 1)


def real_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> ShardSet:
    write_images(root, *(f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2)), kind="JPEG")
    (root / "real.json").write_text(json.dumps([[2, 5], [7]]))
    official(monkeypatch, "imagenet-real", root, {"test": 2})
    config = {"source": {"kind": "benchmark", "name": "imagenet-real", "root": str(root)}}
    ctx = make_context(root, "shards", IngestResources())
    return commit(ctx, run_ingest(IngestConfig.model_validate(config), Inputs({}), ctx), config=config)


def test_imagenets_classes_are_known_by_ids_and_by_their_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order a head has the ids; by words, as other libraries name them, only where each is at its place."""
    ids = imagenet_ids()
    data = real_data(tmp_path / "real", monkeypatch)
    assert tuple(load_manifest(data).classes) == ids
    head = synthetic.weights(tmp_path, classes=1000, names=ids[::-1])
    match = join(data, head)
    assert match is not None and match.outputs[:2] == (999, 998) and match.names == ids and not match.note
    words = [
        _IMAGENET_CATEGORIES,
        list(words_by_id().values()),
        [name.split(",")[0] for name in words_by_id().values()],
    ]
    for names in words:
        theirs = Estimate(class_names=tuple(names))
        found = join(data, theirs)
        assert found is not None and found.outputs == tuple(range(1000))
    moved = [*_IMAGENET_CATEGORIES[1:], _IMAGENET_CATEGORIES[0]]
    with pytest.raises(UsageError, match=r"1000 of 1000 classes are unknown.*'n01440764 \(tench\)' for one"):
        join(data, Estimate(class_names=tuple(moved)))


def test_sets_that_an_earlier_version_numbered_are_read_as_the_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = REGISTRY["imagenet-real"]
    monkeypatch.setitem(REGISTRY, "imagenet-real", replace(entry, classes=()))
    old = real_data(tmp_path / "real", monkeypatch)
    assert load_manifest(old).classes == tuple(map(str, range(1000))), "as it was written"
    match = join(old, synthetic.weights(tmp_path, classes=1000, names=imagenet_ids()[::-1]))
    assert match is not None and match.outputs[:2] == (999, 998) and match.names == imagenet_ids()
    other = synthetic.shards(tmp_path, "numbers", classes=[str(number) for number in range(1000)], counts={"test": 1})
    with pytest.raises(UsageError, match="1000 of 1000 classes are unknown"):
        join(other, Estimate(class_names=imagenet_ids()))  # somebody's numbers, not the benchmark's
