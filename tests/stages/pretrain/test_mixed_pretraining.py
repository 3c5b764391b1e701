"""A pretraining on several sets: what `validate` and `plan` say, and that kills change nothing."""

from pathlib import Path

import pytest
import synthetic
from small_spec import GOOD, problems
from tiny_pretraining import StopsAt, context, recipe

from vitpipe.infra.errors import Stopped, UsageError
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.pretrain.run import run

TWO = GOOD.replace("shards: data", "shards: [data, other]") + (
    "  other: {stage: ingest, config: {source: {kind: digits}, shuffle_seed: 1}}\n"
)


@pytest.mark.parametrize(
    ("text", "overrides", "found"),
    [
        (TWO, (), "2 sets of shards are given: say with config.mix in which proportions, such as [1, 1]"),
        (TWO, ("nodes.net.config.mix=[1]",), "config.mix has 1 proportions for 2 sets of shards"),
        (GOOD, ("nodes.net.config.mix=[1, 2]",), "config.mix has 2 proportions for 1 set of shards"),
        (TWO, ("nodes.net.config.mix=[1, -2]",), "greater than 0"),
        (TWO, ("nodes.net.config.mix=[1, 1e-7]",), "a share is below one in 10000"),
    ],
)
def test_proportions_are_judged_without_data(text, overrides, found):
    (problem,) = problems(text, *overrides)
    assert found in problem


def test_proportions_are_part_of_the_recipe_and_one_set_may_stand_in_a_list():
    config = load(TWO, ("nodes.net.config.mix=[3, 1]",), env={}).graph.nodes["net"].config
    assert config.mix == (3, 1)
    assert load(GOOD.replace("shards: data", "shards: [data]"), (), env={})


def test_an_epoch_is_as_many_images_as_the_sets_have_together():
    def planned(*shards):
        return estimate(recipe(total="2 epochs", mix=[1, 1]), PretrainResources(), {"shards": shards}, Known())

    one, other = Estimate(splits={"train": 100}, num_classes=3), Estimate(splits={"train": 140}, num_classes=3)
    assert planned(one, other).steps == 20
    assert planned(one, Estimate()).steps is None
    with pytest.raises(UsageError, match="they have 3 and 4 classes"):
        planned(one, other.model_copy(update={"num_classes": 4}))


def curve(made, ctx):
    lines = ctx.out.node.read(made.file("metrics.jsonl").at).decode().splitlines()
    return [line.partition(', "seconds"')[0] for line in lines]


def test_a_stopped_run_on_a_mixture_goes_on_as_if_nothing_was(tmp_path: Path):
    sets = (
        synthetic.shards(tmp_path, "one", counts={"train": 30}),
        synthetic.shards(tmp_path, "two", counts={"train": 10}),
    )
    asked, given = recipe(mix=[1, 2], augment={"mixup": 0.2}), Inputs({"shards": sets})
    whole = context(tmp_path, node="whole")
    made = run(asked, given, whole)
    assert made.shards_sha256 == tuple(one.manifest_sha256 for one in sets)
    with pytest.raises(Stopped):
        run(asked, given, context(tmp_path, fence=StopsAt(4)))
    again = context(tmp_path, "a2", ("a1",))
    assert curve(run(asked, given, again), again) == curve(made, whole)
