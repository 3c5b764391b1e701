"""The protocol: what each trial may see, when the test split is opened, what a killed run leaves for the next."""

import json

import pytest
from inprocess import InProcessCluster, commit, make_context
from synthetic import TINY, shards, weights

from vitpipe.infra.curves import CURVES, parse, part_path
from vitpipe.infra.errors import IntegrityError, StageError, Stopped, UsageError
from vitpipe.infra.work import Done
from vitpipe.stages.contract import Inputs
from vitpipe.stages.finetune import protocol
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources, check, check_inputs
from vitpipe.stages.finetune.protocol import Trial, TrialOutcome, choose
from vitpipe.stages.finetune.run import run
from vitpipe.stages.finetune.trial import images_of
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.report.results import rows
from vitpipe.stages.vit.native import load_weights

RECIPE = {
    "batch_images": 12, "total": "4 steps", "peak_lr": [0.01, 0.03], "seeds": [0, 1], "sweep_seeds": 2, "dev": 0.25,
    "train_per_class": 8, "precision": "fp32", "crop": "none", "flip": False,
}  # fmt: skip
RESOURCES = FinetuneResources(threads=1)


def config(**changes) -> FinetuneConfig:
    return FinetuneConfig.model_validate(RECIPE | changes)


class Watching(InProcessCluster):
    """Keeps what was sent; dies after `lives` tasks, as a killed driver does."""

    def __init__(self, ctx=None, lives=10**9):
        super().__init__()
        self.sent, self.choices, self.lives, self.ctx = [], [], lives, ctx

    def fan(self, fn, items, **kwargs):
        for done in super().fan(fn, items, **kwargs):
            self.sent.append(done.item)
            self.choices.append(
                self.ctx is not None and self.ctx.out.node.size(self.ctx.out.at("choice.json")) is not None
            )
            if len(self.sent) > self.lives:
                raise KeyboardInterrupt
            yield done


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("finetune")
    return path, shards(path, noise=400.0), weights(path)


def finetune(world, node, recipe=None, given=True, lives=10**9, **where):
    path, data, pretrained = world
    ctx = make_context(path, node, RESOURCES, **where)
    cluster = Watching(ctx, lives)
    object.__setattr__(ctx, "cluster", cluster)
    inputs = Inputs({"data": [data], "weights": [pretrained] if given else []})
    return (lambda: run(recipe or config(), inputs, ctx)), ctx, cluster


@pytest.fixture(scope="module")
def undisturbed(world):
    start, ctx, cluster = finetune(world, "undisturbed")
    return start(), ctx, cluster


def test_trials_are_among_the_live_curves_while_they_run_and_after(undisturbed):
    _, ctx, cluster = undisturbed
    names = list(map(str, cluster.sent))
    found = parse(ctx.out.node.read(CURVES))
    assert found.has_parts and list(found.lines) == names
    for name in names:
        outcome = json.loads(ctx.out.node.read(ctx.out.at(f"trials/{name}.json")))
        losses, end = found.lines[name]["train/loss"], "dev" if name.startswith("sweep") else "test"
        assert [(point.step, point.value) for point in losses] == list(enumerate(outcome["losses"], 1))
        assert [(one.step, one.value) for one in found.lines[name][f"{end}/accuracy"]] == [(4, outcome["accuracy"])]
        begun = parse(ctx.out.node.read(part_path("a1", name))).lines[name]["train/loss"]
        assert [point.value for point in begun] == outcome["losses"][: len(begun)], "as its task left it at its start"


def test_a_resumed_run_has_the_curves_of_trials_that_were_finished_before(world):
    start, _, _ = finetune(world, "curves-resumed", lives=2)
    with pytest.raises(KeyboardInterrupt):
        start()
    again, ctx, cluster = finetune(world, "curves-resumed", attempt="a2", earlier=("a1",))
    again()
    found = parse(ctx.out.node.read(CURVES))
    assert found.attempt == "a2" and len(cluster.sent) < len(found.lines) == 6


def test_sweeps_on_dev_then_tests_each_seed_once(undisturbed):
    score, ctx, cluster = undisturbed
    assert [str(task) for task in cluster.sent] == [
        "sweep-lr0.01-seed0", "sweep-lr0.01-seed1", "sweep-lr0.03-seed0", "sweep-lr0.03-seed1",
        *(f"test-lr{score.chosen['peak_lr']}-seed{seed}" for seed in (0, 1)),
    ]  # fmt: skip
    outcomes = {
        name: json.loads(ctx.out.node.read(ctx.out.at(f"trials/{name}.json"))) for name in map(str, cluster.sent)
    }
    assert {name: (one["num_train"], one["num_scored"]) for name, one in outcomes.items()} == {
        name: (18, 6) if name.startswith("sweep") else (24, 30) for name in outcomes
    }
    assert score.per_seed == tuple(outcomes[name]["accuracy"] for name in list(outcomes)[4:])
    assert set(score.dev_scores) == {"0.01", "0.03"}
    assert json.loads(ctx.out.node.read(ctx.out.at("score.json")))["per_seed"] == list(score.per_seed)


def test_the_test_split_is_opened_after_the_choice_is_committed(undisturbed):
    _, ctx, cluster = undisturbed
    assert cluster.choices == [False] * 4 + [True] * 2
    sweep, final = cluster.sent[0], cluster.sent[-1]
    assert not [file.path for file in sweep.data.files if file.path.startswith("test-")]
    with pytest.raises(IntegrityError, match="test-000000"):  # a planted leak: a sweep trial that asks for test images
        next(EvalImages(sweep.data, "test", 16, "squash", ctx.scratch / "leak").batches(8))
    assert len(EvalImages(final.data, "test", 16, "squash", ctx.scratch / "leak").labels) == 30
    assert sweep.choice_sha256 is None and final.choice_sha256


def test_the_score_has_the_mistakes_of_its_first_seed(undisturbed):
    score, ctx, _ = undisturbed
    wrong = json.loads(ctx.out.node.read(ctx.out.at("score.json")))["wrong"]
    assert len(wrong) == min(24, round(30 * (1 - score.per_seed[0])))
    assert all(true != given and 0 <= image < 30 for image, true, given, _ in wrong)
    assert json.loads(ctx.out.node.read(ctx.out.at("trials/sweep-lr0.01-seed0.json")))["wrong"] == []


def test_the_score_carries_the_first_seeds_weights(world, undisturbed):
    score, ctx, _ = undisturbed
    kept = commit(ctx, score, stage="finetune")
    settings, state = load_weights(kept, world[0] / "kept")
    assert settings.classes == 3 and settings == score.model
    assert state["head.weight"].abs().max() > 0, "trained from the zero head"
    assert kept.read_json("labels.json") == {"id2label": {"0": "red", "1": "green", "2": "blue"}}


def test_a_killed_run_that_averages_and_mixes_goes_on_to_the_same_bytes(world):
    recipe = config(ema={"decay": 0.9}, augment={"mixup": 0.8, "cutmix": 1.0}, layer_decay=0.7, label_smoothing=0.1,
                    optimizer={"kind": "adamw", "weight_decay": 0.05}, stochastic_depth=0.2, warmup="1 steps",
                    sweep_seeds=1)  # fmt: skip
    start, _, everything = finetune(world, "modern", recipe)
    score = start()
    start, _, _ = finetune(world, "modern-killed", recipe, lives=1)
    with pytest.raises(KeyboardInterrupt):
        start()
    start, _, cluster = finetune(world, "modern-killed", recipe, attempt="a2", earlier=("a1",))
    resumed = start()
    assert len(everything.sent) == 4 and len(cluster.sent) == 2
    assert {file.path: file.sha256 for file in resumed.files} == {file.path: file.sha256 for file in score.files}
    words = "AdamW with betas 0.9 and 0.999, weight decay 0.05"
    said = {"optimizer": words, "layer_decay": 0.7, "stochastic_depth": 0.2, "label_smoothing": 0.1}
    assert score.protocol["augment"] == {"mixup": 0.8, "cutmix": 1.0}
    assert said.items() <= score.protocol.items() and score.model.stochastic_depth == 0.2


@pytest.mark.parametrize("lives", [0, 5])
def test_a_killed_run_goes_on_with_its_finished_trials(world, undisturbed, lives):
    score, _, everything = undisturbed
    start, _, _ = finetune(world, f"killed-{lives}", lives=lives)
    with pytest.raises(KeyboardInterrupt):
        start()

    start, ctx, cluster = finetune(world, f"killed-{lives}", attempt="a2", earlier=("a1",))
    resumed = start()

    assert len(cluster.sent) == len(everything.sent) - lives - 1, "the one that was yielded last had finished too"
    assert resumed.facts() == score.facts()
    digests = lambda found: {file.path: file.sha256 for file in found.files}  # noqa: E731
    assert digests(resumed) == digests(score)
    assert any(file.at.startswith("a1/trials/") for file in resumed.files)
    assert ctx.events.of("resumed")


def test_of_a_class_with_fewer_images_all_are_trained_on_and_the_score_counts_it(world):
    start, ctx, cluster = finetune(world, "short", config(train_per_class=25, peak_lr=0.01, seeds=[0], sweep_seeds=1))
    score = start()
    assert json.loads(ctx.out.node.read(ctx.out.at("score.json")))["short_classes"] == 3 and len(cluster.sent) == 1
    assert score.protocol["short_classes"] == 3 and score.protocol["num_train"] == 60
    assert rows([commit(ctx, score, stage="finetune")])[0].labels == "25 labels per class, fewer in 3 classes"
    start, ctx, cluster = finetune(world, "strict", config(train_per_class=25, strict_train_per_class=True))
    with pytest.raises(StageError, match=r"25 training images .* 3 of 3 classes have fewer, class 0 has 20"):
        start()
    assert not cluster.sent, "before anything is trained"


def test_a_damaged_piece_and_one_of_another_choice_do_not_count(world):
    start, ctx, _ = finetune(world, "damaged")
    start()
    at = ctx.out.at("trials/sweep-lr0.01-seed0.json")
    ctx.out.node.write(at, ctx.out.node.read(at).replace(b'"steps": 4', b'"steps": 5'))
    sweep = protocol.sweep_trials(config())
    assert len(protocol.finished(ctx.out, sweep, None)) == 3
    assert not protocol.finished(ctx.out, protocol.final_trials(config(), 0.01), "another choice")


class Failing(InProcessCluster):
    """One task ends with an error, the others as they do."""

    def fan(self, fn, items, **kwargs):
        for done in super().fan(fn, items, **kwargs):
            failed = str(done.item) == "sweep-lr0.01-seed1"
            yield Done(done.item, error=StageError("train", "out of memory")) if failed else done


def test_one_failing_trial_leaves_the_others_and_a_resubmit_runs_what_is_missing(world, undisturbed):
    start, ctx, _ = finetune(world, "failing")
    object.__setattr__(ctx, "cluster", Failing())
    with pytest.raises(StageError, match="out of memory"):
        start()
    ctx.out.node.delete(ctx.out.at("trials/sweep-lr0.01-seed1.json"))  # the one that failed left nothing
    assert len(list(ctx.out.node.list(ctx.out.at("trials/")))) == 3

    start, _, cluster = finetune(world, "failing", attempt="a2", earlier=("a1",))
    assert start().facts() == undisturbed[0].facts()
    assert [str(task) for task in cluster.sent if task.trial.phase == "sweep"] == ["sweep-lr0.01-seed1"]


def test_a_rate_that_diverges_is_an_outcome_of_the_sweep(world):
    start, ctx, _ = finetune(world, "diverging", config(train_per_class=None, peak_lr=[0.01, 1e30]))
    score = start()
    assert score.chosen == {"peak_lr": 0.01}
    choice = json.loads(ctx.out.node.read(ctx.out.at("choice.json")))
    assert choice["diverged"] == [1e30] and choice["dev_scores"]["1e+30"] == 0


def test_one_rate_needs_no_sweep_and_a_diverged_test_is_an_error(world):
    start, _, cluster = finetune(world, "single", config(peak_lr=0.01))
    assert start().dev_scores == {} and len(cluster.sent) == 2
    start, _, _ = finetune(world, "diverged", config(peak_lr=1e30))
    with pytest.raises(StageError, match="seed 0 diverged"):
        start()


def test_both_arms_of_a_comparison_see_the_same_images(world, undisturbed):
    _, _, pretrained = undisturbed
    start, _, scratch = finetune(world, "scratch", config(model=TINY.model_dump()), given=False)
    score = start()
    assert score.protocol["pretrained"] is False
    assert [str(task) for task in scratch.sent][:4] == [str(task) for task in pretrained.sent][:4]

    def images(task):
        train, scored = images_of(task, 16)
        batches = [*train.stream([(0, 8), (8, 8)]), *scored.batches(8)]
        return [(batch.positions_B.tolist(), batch.images_BCHW.numpy().tobytes()) for batch in batches]

    for one, other in zip(pretrained.sent[:4], scratch.sent[:4], strict=True):
        assert images(one) == images(other)
    assert images(pretrained.sent[0]) != images(pretrained.sent[1]), "another seed, another subset"


def test_val_is_scored_where_it_is_asked_for_and_no_sweep_can_read_it(world):
    path, _, pretrained = world
    data = shards(path, "with-val", counts={"train": 60, "val": 21, "test": 30}, noise=400.0)
    start, ctx, cluster = finetune((path, data, pretrained), "on-val", config(split="val"))
    score = start()
    assert score.num_test == 21 and score.protocol["split"] == "val"
    sweep, final = cluster.sent[0], cluster.sent[-1]
    for name in ("val", "test"):  # a planted leak: a sweep trial that asks for what is scored, or for the test
        with pytest.raises(IntegrityError, match=f"{name}-000000"):
            next(EvalImages(sweep.data, name, 16, "squash", ctx.scratch / "leak").batches(8))
    assert len(images_of(final, 16)[1].labels) == 21
    assert ctx.events.of("test_opened")[0].startswith("the split val, once each for the seeds 0, 1")
    start, _, _ = finetune((path, data, pretrained), "on-test", config(peak_lr=score.chosen["peak_lr"]))
    on_test = start()
    assert on_test.num_test == 30 and "split" not in on_test.protocol
    with pytest.raises(ValueError, match="what is trained on"):
        config(split="train")


def test_choose_breaks_ties_by_loss():
    trials = protocol.sweep_trials(config(sweep_seeds=1))
    outcome = lambda accuracy, loss: TrialOutcome(  # noqa: E731
        accuracy=accuracy, loss=loss, num_scored=6, num_train=18, steps=4, losses=()
    )
    tied = choose(config(), dict(zip(trials, (outcome(0.5, 1.0), outcome(0.5, 0.9)), strict=True)))
    assert tied["chosen"] == {"peak_lr": 0.03} and tied["reason"].startswith("lowest mean loss of 2 rates")
    assert choose(config(), dict(zip(trials, (outcome(0.6, 1.0), outcome(0.5, 0.9)), strict=True)))["chosen"] == {
        "peak_lr": 0.01
    }


def test_stops_when_asked_and_keeps_nothing_half(world):
    start, ctx, _ = finetune(world, "stopped")
    ctx.fence.stop("preempted")
    with pytest.raises(Stopped, match="after step 1 of 4: preempted"):
        start()
    assert not list(ctx.out.node.list(ctx.out.at("trials/")))


def test_what_cannot_work_is_said_before_anything_runs(world):
    path, _, _ = world
    assert check(config(), FinetuneResources(micro_batch=7)) == [
        "batch_images 12 is not a multiple of micro_batch 7: 1 x 7 + 5"
    ]
    assert "needs config.model" in check_inputs(config(), frozenset({"data"}))[0]
    assert "remove one" in check_inputs(config(model=TINY.model_dump()), frozenset({"data", "weights"}))[0]
    with pytest.raises(ValueError, match=r"lists 0.01 more than once"):
        config(peak_lr=[0.01, 0.01])
    with pytest.raises(UsageError, match="warmup 8"):
        config(warmup="8 steps").cosine(4, 24)
    ctx = make_context(path, "no-test", RESOURCES)
    with pytest.raises(UsageError, match="split test"):
        run(config(), Inputs({"data": [shards(path, "half", counts={"train": 9})]}), ctx)
    assert Trial("sweep", 1e-05, 3).path == "trials/sweep-lr1e-05-seed3.json"
