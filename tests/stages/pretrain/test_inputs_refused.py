"""Inputs that no training could use: refused at plan where they are known, and at the latest before any rank starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic
from inprocess import InProcessCluster
from tiny_pretraining import context, recipe

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, ShardSet
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.pretrain.run import run

MEASURED = {"evaluate": {"every": "4 steps", "fewshot": {"shots": [2, 5]}}}
Made = Callable[[Path], ShardSet]


def several(folder: Path) -> ShardSet:
    return synthetic.shards(folder, "several", multi_label=True)


def untrained(folder: Path) -> ShardSet:
    return synthetic.shards(folder, "untrained", counts={"test": 30})


def untested(folder: Path) -> ShardSet:
    return synthetic.shards(folder, "untested", counts={"train": 60})


def others(folder: Path) -> ShardSet:
    return synthetic.shards(folder, "others", ("red", "green", "black"))


def alone(folder: Path) -> ShardSet:
    return synthetic.shards(folder, "alone", ("red",))


def plan(config: PretrainConfig, shards: list[Artifact | Estimate], probes: list[Artifact | Estimate]) -> Estimate:
    return estimate(config, PretrainResources(), {"shards": shards, "probes": probes}, Known())


REFUSED = [
    ({}, [untrained], [], "no images to train on"),
    ({}, [several], [], "a softmax has one"),
    ({}, [alone], [], "(?i)it has a single class: 1"),
    ({"mix": [1, 1]}, [synthetic.shards, others], [], "their classes differ: 3 and 3; only the first has 'blue'"),
    (MEASURED, [synthetic.shards], [untested], "it has no split test"),
    (MEASURED, [synthetic.shards], [untrained], "it has no split train"),
    (MEASURED, [synthetic.shards], [several], "its images have several classes each"),
]


@pytest.mark.parametrize(("fields", "shards", "probes", "words"), REFUSED)
def test_what_is_committed_is_refused_at_plan_as_when_it_runs(
    fields: dict[str, object], shards: list[Made], probes: list[Made], words: str, tmp_path: Path
) -> None:
    given, looked_at = [made(tmp_path) for made in shards], [made(tmp_path) for made in probes]
    with pytest.raises(UsageError, match=words):
        plan(recipe(**fields), [*given], [*looked_at])
    with pytest.raises(UsageError, match=words):
        run(recipe(**fields), Inputs({"shards": given, "probes": looked_at}), context(tmp_path))


def test_what_is_only_planned_is_refused_where_its_splits_are_known() -> None:
    shards, no_train = Estimate(splits={"train": 240}, num_classes=5), Estimate(splits={"test": 240}, num_classes=5)
    with pytest.raises(UsageError, match=r"the shards of this run: it holds \{'test': 240\}, no images to train on"):
        plan(recipe(), [no_train], [])
    with pytest.raises(UsageError, match=r"a probe of this run while training: it has no split train"):
        plan(recipe(**MEASURED), [shards], [no_train])
    assert plan(recipe(**MEASURED), [shards], [Estimate()]).steps == 10
    assert plan(recipe(), [Estimate()], []).notes == ("known once the shards are",)


def test_a_count_that_is_reckoned_as_none_is_not_refused() -> None:
    """The first of several files without an image, or a small share of few: counts are rounded before an ingest."""
    shards, rounded = Estimate(splits={"train": 240}, num_classes=5), Estimate(splits={"train": 20, "test": 0})
    assert plan(recipe(**MEASURED), [shards], [rounded]).steps == 10
    assert plan(recipe(), [Estimate(splits={"train": 0}, num_classes=5)], []).notes == ("known once the shards are",)


def test_classes_that_are_known_are_compared_while_another_set_is_not(tmp_path: Path) -> None:
    mixed, three = recipe(mix=[1, 1, 1]), Estimate(splits={"train": 240}, num_classes=3)
    with pytest.raises(UsageError, match="their classes differ: 3 and 3"):
        plan(mixed, [synthetic.shards(tmp_path), others(tmp_path), Estimate()], [])
    with pytest.raises(UsageError, match="they have 3 and 4 classes"):
        plan(mixed, [three, three.model_copy(update={"num_classes": 4}), Estimate()], [])
    assert plan(mixed, [three, three, Estimate()], []).steps is None


def test_a_probe_with_too_few_images_is_told_of_or_refused_before_any_rank_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Started(Exception):
        pass

    def gang(*_: object, **__: object) -> None:
        raise Started

    monkeypatch.setattr(InProcessCluster, "gang", gang)
    few = synthetic.shards(tmp_path, "few", ("one", "two"), {"train": 9, "test": 4})
    inputs = Inputs({"shards": [synthetic.shards(tmp_path)], "probes": [few]})
    strict = {"evaluate": {"every": "4 steps", "fewshot": {"shots": [2, 5], "strict_shots": True}}}
    with pytest.raises(UsageError, match=r"few: cannot take 5 training .* not fewer: 1 of 2 classes have fewer"):
        run(recipe(**strict), inputs, context(tmp_path))
    ctx = context(tmp_path, node="told")
    with pytest.raises(Started):
        run(recipe(**MEASURED), inputs, ctx)
    assert ctx.events.of("note") == [
        "1 of 2 classes of few have fewer training images than 5 shots: all of theirs are taken"
    ]


RGB, MOVED = ("red", "green", "blue"), ("blue", "red", "green")


def test_a_head_that_numbers_the_classes_otherwise_is_refused_and_one_of_other_names_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InProcessCluster, "gang", lambda *_, **__: pytest.fail("ranks were started"))
    shards = synthetic.shards(tmp_path)
    settings = recipe().model
    moved = synthetic.weights(tmp_path, "moved", settings, classes=3, names=MOVED)
    planned = Estimate(splits={"train": 60}, num_classes=3, class_names=RGB)
    words = "their classes differ: the same 3 names in another order, from number 0 on: 'blue' and 'red'"
    for given in (shards, planned):
        with pytest.raises(UsageError, match=words):
            estimate(recipe(), PretrainResources(), {"shards": [given], "init": [moved]}, Known())
    with pytest.raises(UsageError, match=words):
        run(recipe(), Inputs({"shards": [shards], "init": [moved]}), context(tmp_path))
    for names, told in (
        (RGB, None),
        (("rot", "green", "blau"), "calls class 0 'rot', the shards 'red'"),
        ((), "no class"),
    ):
        given = synthetic.weights(tmp_path, f"w{len(names)}{told is None}", settings, classes=3, names=names)
        monkeypatch.setattr(InProcessCluster, "gang", began)
        ctx = context(tmp_path, node=f"n{len(names)}{told is None}")
        with pytest.raises(Began):
            run(recipe(), Inputs({"shards": [shards], "init": [given]}), ctx)
        assert any(told in note for note in ctx.events.of("note")) if told else not ctx.events.of("note")


class Began(Exception):
    """Ranks would start now."""


def began(*_: object, **__: object) -> None:
    raise Began


def test_planned_sets_of_other_classes_are_refused_by_their_names() -> None:
    one, other = (Estimate(splits={"train": 60}, num_classes=3, class_names=names) for names in (RGB, MOVED))
    with pytest.raises(UsageError, match="their classes differ: the same 3 names in another order"):
        plan(recipe(mix=[1, 1]), [one, other], [])
    assert plan(recipe(mix=[1, 1]), [one, one], []).class_names == RGB
