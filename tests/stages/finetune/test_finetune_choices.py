"""What a fine-tuning says of its choices: leaks, hopeless rates, a single rate, another resolution."""

import json

import pytest
from inprocess import make_context
from synthetic import shards, weights

from vitpipe.infra.errors import IntegrityError, StageError
from vitpipe.stages.artifacts import Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.finetune import trial
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.run import run
from vitpipe.stages.images.evaluate import EvalImages

RECIPE = {
    "batch_images": 12, "total": "8 steps", "peak_lr": [0.01, 0.03], "seeds": [0, 1], "dev": 0.25,
    "precision": "fp32", "crop": "none", "flip": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("choices")
    return path, shards(path, noise=400.0), weights(path)


def finetune(world, node, **changes) -> tuple[Score, object]:
    path, data, pretrained = world
    ctx = make_context(path, node, FinetuneResources(threads=1))
    config = FinetuneConfig.model_validate(RECIPE | changes)
    return run(config, Inputs({"data": [data], "weights": [pretrained]}), ctx), ctx


def choice(ctx) -> dict:
    return json.loads(ctx.out.node.read(ctx.out.at("choice.json")))


def test_a_trial_that_asks_for_test_images_before_the_choice_fails(world, monkeypatch):
    honest = trial.images_of

    def leaking(task, image_px):
        train, _ = honest(task, image_px)
        return train, EvalImages(task.data, "test", image_px, "squash", task.context.shards)

    monkeypatch.setattr(trial, "images_of", leaking)
    with pytest.raises(IntegrityError, match="test-000000"):
        finetune(world, "leaking")
    score, _ = finetune(world, "no-choice-left", peak_lr=0.01)
    assert score.num_test == 30, "where the choice is committed the same trial may read them"


def test_when_the_test_split_was_opened_is_on_record(world):
    score, ctx = finetune(world, "opened")
    committed = score.file("choice.json")
    assert score.protocol["choice_sha256"] == committed.sha256
    assert ctx.events.of("test_opened") == [f"once each for the seeds 0, 1, after the choice {committed.sha256[:12]}"]
    pieces = [json.loads(ctx.out.node.read(file.at)) for file in score.files if file.path.startswith("trials/test-")]
    assert [piece["choice_sha256"] for piece in pieces] == [committed.sha256] * 2


def test_a_hopeless_rate_is_ended_only_when_asked_and_said(world):
    whole, ctx = finetune(world, "patient", peak_lr=[1e-9, 0.03])
    assert choice(ctx)["hopeless"] == [] and not ctx.events.of("hopeless")
    assert whole.chosen == {"peak_lr": 0.03}
    score, ctx = finetune(world, "impatient", peak_lr=[1e-9, 0.03], stop_hopeless=0.5)
    assert choice(ctx)["hopeless"] == [1e-9] and score.dev_scores["1e-09"] == 0
    assert ctx.events.of("hopeless") == ["peak_lr 1e-09 had learned nothing when stop_hopeless looked; it was ended"]
    piece = json.loads(ctx.out.node.read(ctx.out.at("trials/sweep-lr1e-09-seed0.json")))
    assert piece["steps"] == piece["hopeless_at"] == 4
    assert score.per_seed == whole.per_seed, "the rate that learns is left alone"
    with pytest.raises(StageError, match="had learned nothing"):
        finetune(world, "all-hopeless", peak_lr=[1e-9, 2e-9], stop_hopeless=0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"kind": "adamw", "momentum": 0.9}}, "adamw has no momentum: leave it out"),
        ({"optimizer": {"betas": [0.9, 0.99]}}, "sgd has no betas: leave it out"),
        ({"optimizer": {"kind": "lamb"}}, "'adamw', 'adam', 'lion' or 'sgd'"),
        ({"optimizer": {"kind": "adamw", "peak_lr": 0.1}}, "(?s)peak_lr.*not permitted"),
        ({"optimizer": {"decays": "all"}}, "no meaning without weight_decay"),
        *[({"layer_decay": value}, "greater than 0|less than or equal to 1") for value in (0, -0.5, 1.01)],
        ({"end_lr": 0.02}, r"end_lr 0\.02 is above peak_lr 0\.01"),
        ({"augment": {"mixup": -1}}, "greater than or equal to 0"),
        ({"augment": {"crop": "none"}}, "not permitted"),
        ({"label_smoothing": 1}, "less than 1"),
        ({"stochastic_depth": 1.0}, "less than 1"),
        ({"strict_train_per_class": True}, "state that too"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_when_it_is_read(changes, words):
    with pytest.raises(ValueError, match=words):
        FinetuneConfig.model_validate(RECIPE | changes)


def test_one_rate_for_all_layers_is_said_in_one_way():
    plain, one = (FinetuneConfig.model_validate(RECIPE | {"layer_decay": share}) for share in (None, 1))
    assert one == plain and one.model_dump_json() == plain.model_dump_json()
    assert FinetuneConfig.model_validate(RECIPE | {"layer_decay": 0.75}).layer_decay == 0.75


def test_a_sweep_of_one_has_nothing_to_choose_and_says_so(world):
    score, ctx = finetune(world, "one", peak_lr=[0.01])
    assert score.protocol["why"] == choice(ctx)["reason"] == "one rate given, nothing to choose"
    assert score.dev_scores == {} and score.chosen == {"peak_lr": 0.01}


def test_seeds_twice_are_refused():
    with pytest.raises(ValueError, match=r"seeds lists 1 more than once"):
        FinetuneConfig.model_validate(RECIPE | {"seeds": [0, 1, 1]})


def test_another_resolution_is_resized_by_the_named_mode_and_said(world):
    score, _ = finetune(world, "larger", image_px=24, position_resize="timm", peak_lr=0.01)
    assert score.protocol["positions"] == "4x4 to 6x6 patches as timm" and score.protocol["image_px"] == 24
    same, _ = finetune(world, "same", peak_lr=0.01)
    assert same.protocol["positions"] is None
