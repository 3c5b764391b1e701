"""The stage as a whole: features, baselines, own head."""

import json

import numpy as np
import pytest
import torch
from inprocess import make_context
from synthetic import TINY, shards, weights

from vitpipe.infra.errors import StageError, Stopped, UsageError
from vitpipe.stages.artifacts import Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources, check_inputs
from vitpipe.stages.evaluate.quality import quality, real_accuracy
from vitpipe.stages.evaluate.run import run
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.training.measure.fewshot import draw
from vitpipe.stages.training.measure.ridge import Ridge
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.native import load_weights


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate")
    return path, shards(path, noise=400.0), weights(path)


def evaluate(world, node, data=None, given=None, where=None, **config):
    path, default_data, default_weights = world
    ctx = make_context(path, node, EvaluateResources(batch_images=16), run=node, **(where or {}))
    inputs = Inputs({"data": [data or default_data], "weights": [given or default_weights]})
    return run(EvaluateConfig(method=config.pop("method", "fewshot"), **config), inputs, ctx), ctx


def test_fewshot_is_the_ridge_on_features_of_all_images(world):
    path, data, given = world
    score, ctx = evaluate(world, "probe", shots=(5, 1), seeds=(0, 3), eval_resize="squash")

    settings, state = load_weights(given, path / "own")
    model = ViT(settings).eval()
    model.load_state_dict(state)
    features, labels = {}, {}
    for split in ("train", "test"):
        images = EvalImages(data, split, 16, "squash", path / "cache")
        whole = torch.cat([batch.images_BCHW for batch in images.batches(64)])
        with torch.inference_mode():
            features[split], labels[split] = model.features(whole).numpy(), images.labels
    for place, seed in enumerate((0, 3)):
        supports = draw(labels["train"], 3, seed, (5,))
        ridge = Ridge.fit(features["train"][supports[5]], labels["train"][supports[5]], 3)
        assert score.per_seed[place] == (ridge.predict(features["test"], 1024.0) == labels["test"]).mean()
    assert score.num_test == 30 and score.value == np.mean(score.per_seed)
    assert score.protocol["shots"] == 5, "the first number of shots is the score's value"
    assert ctx.progress.updates[-1]["step"] == 1


def test_baselines_are_another_start_per_seed_and_the_pixels_themselves(world):
    untrained, ctx = evaluate(world, "untrained", features="untrained", shots=(5,))
    assert ctx.events.of("features") == [
        "train: 15 images through the model, 0 had been through before",
        *["train: 15 images through the model, 0 had been through before"] * 2,
        *["test: 30 images through the model, 0 had been through before"] * 3,
    ]
    pixels, _ = evaluate(world, "pixels", features="raw_pixels", shots=(5,))
    trained, _ = evaluate(world, "trained", shots=(5,))
    assert len({untrained.per_seed, pixels.per_seed, trained.per_seed}) == 3

    again, _ = evaluate(world, "again", features="untrained", shots=(5,), seeds=(1,))
    assert again.per_seed == untrained.per_seed[1:2], "a pure function of its seed"


@pytest.mark.parametrize("method", ["linear", "knn"])
def test_probes_take_all_images_or_the_same_draws_as_fewshot(world, method):
    whole, _ = evaluate(world, f"{method}-all", method=method, eval_resize="squash")
    assert whole.protocol["num_train"] == 60 and "shots" not in whole.protocol
    assert len(whole.per_seed) == (1 if method == "knn" else 3), "without a draw a vote has no seeds"
    assert whole.value >= 0.5, "three colours under noise"
    drawn, ctx = evaluate(world, f"{method}-drawn", method=method, shots=(5, 1), eval_resize="squash")
    assert len(drawn.per_seed) == 3 and drawn.protocol["shots"] == 5
    content = json.loads(ctx.out.node.read(drawn.file("score.json").at))
    assert set(content["by_shots"]) == {"5", "1"} and ("chosen_l2" in content) == (method == "linear")


def test_real_counts_any_right_name_and_leaves_out_images_without(world):
    named = np.array([0, 1, 2, 2])
    right = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert real_accuracy(named, right) == (pytest.approx(2 / 3), 3)
    assert real_accuracy(named, np.zeros((4, 3))) == (0.0, 0)
    path, _, _ = world
    data = shards(path, "named-real", ("class 4", "class 1"), {"test": 20})
    real, _ = evaluate(world, "real", data=data, method="real", eval_resize="squash")
    single, _ = evaluate(world, "single", data=data, method="classify", eval_resize="squash")
    assert real.value == single.value and (real.metric, single.metric) == ("real", "top1"), "one right name each"


def test_real_is_the_rule_of_the_published_script_on_a_file_in_its_form(tmp_path):
    """reassessed-imagenet's README: `is_correct = [pred in real[i] for i, pred in enumerate(preds) if real[i]]`."""
    rng = np.random.default_rng(0)
    lists = [rng.choice(20, rng.integers(0, 4), replace=False).tolist() for _ in range(500)]
    (tmp_path / "real.json").write_text(json.dumps(lists))
    real, predictions = json.loads((tmp_path / "real.json").read_text()), rng.integers(0, 20, 500)
    is_correct = [int(pred) in real[i] for i, pred in enumerate(predictions) if real[i]]
    right = np.zeros((500, 20), dtype=np.float32)
    for image, labels in enumerate(real):
        right[image, labels] = 1
    value, counted = real_accuracy(predictions, right)
    assert value == pytest.approx(np.mean(is_correct), abs=1e-12) and counted == len(is_correct) < 500


def test_what_stands_beside_an_accuracy():
    logits = np.log(np.array([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]]))
    found = quality(logits, np.array([0, 0, 1, 1]))
    assert found["per_class"] == [1.0, 0.5, None] and found["mean_per_class"] == 0.75 and found["top5"] == 1.0
    assert found["confusion"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    # confidences 0.9, 0.8 and 0.8, 0.6 in bins of their own: |1 - 0.9|, |1 - 0.8| twice, |0 - 0.6|
    assert found["calibration_error"] == pytest.approx((0.1 + 0.2 * 2 + 0.6) / 4, abs=1e-6)


def test_classify_matches_classes_by_name(world):
    path, _, given = world
    data = shards(path, "named", ("class 4", "class 1"), {"test": 20})
    score, _ = evaluate(world, "classify", data=data, method="classify", eval_resize="squash")

    settings, state = load_weights(given, path / "own")
    model = ViT(settings).eval()
    model.load_state_dict(state)
    images = EvalImages(data, "test", 16, "squash", path / "cache")
    with torch.inference_mode():
        named = torch.cat([model(batch.images_BCHW) for batch in images.batches(64)]).argmax(1).numpy()
    assert score.value == (named == np.array([4, 1])[images.labels]).mean() and "class_map" not in score.protocol
    turned = {"class 4": "class 1", "class 1": "class 4"}
    other, _ = evaluate(world, "turned", data=data, method="classify", eval_resize="squash", class_map=turned)
    assert other.value == (named == np.array([1, 4])[images.labels]).mean() and other.protocol["class_map"] == turned


def test_val_is_scored_where_it_is_asked_for(world):
    path, _, _ = world
    renamed = shards(path, "colours-val", counts={"train": 60, "val": 30}, noise=400.0)
    for method, more in (("fewshot", {"shots": (5,)}), ("linear", {}), ("knn", {})):
        score, ctx = evaluate(world, f"{method}-val", data=renamed, method=method, split="val", seeds=(0,), **more)
        assert score.num_test == 30 and score.protocol["split"] == "val"
        assert any(text.startswith("val: 30 images") for text in ctx.events.of("features"))
    named = shards(path, "named-val", ("class 4", "class 1"), {"val": 20, "train": 6})
    assert evaluate(world, "classify-val", data=named, method="classify", split="val")[0].num_test == 20
    assert evaluate(world, "classify-train", data=named, method="classify", split="train")[0].num_test == 6
    assert "split" not in evaluate(world, "as-ever", shots=(5,), seeds=(0,))[0].protocol
    with pytest.raises(UsageError, match=r"no split test, only train \(60\), val \(30\)\. Set `split: val`"):
        evaluate(world, "no-test", data=renamed)
    with pytest.raises(ValueError, match="fitted on the split train"):
        EvaluateConfig(method="knn", split="train")


def test_bad_requests_say_what_is_missing(world):
    path, _, _ = world
    with pytest.raises(UsageError, match="3 of 3 classes are unknown to the weights, 'red' for one"):
        evaluate(world, "unknown", method="classify")
    with pytest.raises(StageError, match="3 of 3 classes have fewer, class 0 has 20"):
        evaluate(world, "greedy", shots=(5, 25), strict_shots=True)
    with pytest.raises(UsageError, match="image_px 2 is smaller than one patch of"):
        evaluate(world, "too-small", shots=(5,), image_px=2)
    with pytest.raises(ValueError, match="knn draws none here"):
        EvaluateConfig(method="knn", strict_shots=True)
    with pytest.raises(UsageError, match="Score without weights"):
        bare = Score(benchmark="x", metric="top1", value=0, per_seed=(0.0,), num_test=1)
        evaluate(world, "wrong", given=bare)
    with pytest.raises(UsageError, match="split test"):
        evaluate(world, "no-test", data=shards(path, "train-only", counts={"train": 9}))
    with pytest.raises(UsageError, match="single class"):
        evaluate(world, "single-class", data=shards(path, "one", classes=("red",)))
    assert check_inputs(EvaluateConfig(method="fewshot"), frozenset({"data"}))
    assert not check_inputs(EvaluateConfig(method="fewshot", features="raw_pixels", image_px=8), frozenset({"data"}))


@pytest.mark.parametrize("method", ["fewshot", "linear", "knn"])
def test_of_a_class_with_fewer_images_than_shots_all_are_taken(world, method):
    data = shards(
        world[0], f"uneven-{method}", counts={"train": 10, "test": 6}
    )  # 4 of the first class, 3 of the others
    score, ctx = evaluate(world, f"short-{method}", data=data, method=method, shots=(4, 3), seeds=(0,), l2_sweep=(1,))
    content = json.loads(ctx.out.node.read(score.file("score.json").at))
    assert content["short_classes"] == 2 and content["short_by_shots"] == {"4": 2, "3": 0}
    assert ctx.events.of("features")[0].startswith("train: 10 images"), "all there are"
    strict, _ = evaluate(world, f"even-{method}", data=data, method=method, shots=(3,), strict_shots=True, seeds=(0,),
                         l2_sweep=(1,))  # fmt: skip
    assert strict.num_test == 6, "no class is short of 3"


def test_stops_when_asked(world):
    path, data, given = world
    ctx = make_context(path, "stopped", EvaluateResources())
    ctx.fence.stop("preempted")
    with pytest.raises(Stopped, match="preempted"):
        run(EvaluateConfig(method="fewshot", shots=(1,)), Inputs({"data": [data], "weights": [given]}), ctx)


def test_another_image_size_resizes_the_positions(world):
    score, _ = evaluate(world, "larger", image_px=24, shots=(5,))
    assert score.protocol["image_px"] == 24 and TINY.image_px == 16
