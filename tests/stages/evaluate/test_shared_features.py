"""Frozen features: each image once through each model, whoever asks; nothing of the scored split before the choice."""

import json
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from inprocess import HeldFence, InProcessCluster, make_context
from synthetic import shards, weights

from vitpipe.infra.errors import IntegrityError, LeaseLost, StageError, Stopped
from vitpipe.infra.work import Done
from vitpipe.pipeline.drive.shared_pieces import SharedPieces, Turns
from vitpipe.pipeline.store.contents import SHARED
from vitpipe.stages.contract import Inputs
from vitpipe.stages.evaluate import features, frozen
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run
from vitpipe.stages.evaluate.work_items import ExtractTask, FitTask
from vitpipe.stages.vit.model import ViT

METHODS = {
    "fewshot": {"shots": (5, 1), "l2_shared": (1.0, 1024.0)},
    "linear": {"l2_sweep": (0.01, 1.0)},
    "knn": {},
    "classify": {},
}


@pytest.fixture
def world(tmp_path):
    names = ("class 4", "class 1", "class 0")
    return tmp_path, shards(tmp_path, "named", names, noise=400.0), weights(tmp_path)


@pytest.fixture
def passed(monkeypatch):
    """How many images have been through a model."""
    counted = []
    whole = ViT.features

    def count(self, images):
        counted.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(ViT, "features", count)
    return counted


def evaluate(world, node, method, *, turns=None, cluster=None, run_name="shared", attempt="a1", **more):
    path, data, given = world
    resources = EvaluateResources(batch_images=16)
    ctx = make_context(path, node, resources, cluster, run=run_name, attempt=attempt)
    if turns is not None:
        object.__setattr__(ctx, "shared", replace(ctx.shared, turns=turns))
    config = EvaluateConfig(**{"method": method, "seeds": (0, 1), "eval_resize": "squash"} | METHODS[method] | more)
    return run(config, Inputs({"data": [data], "weights": [given]}), ctx), ctx


def content(score, ctx, path="score.json"):
    return json.loads(ctx.out.node.read(score.file(path).at))


def test_siblings_share_what_one_of_them_computed(world, passed):
    alone = {method: evaluate(world, method, method, run_name=f"alone-{method}")[0] for method in METHODS}
    assert sum(passed) > 200, "each of them alone sends most images through the model"
    passed.clear()
    together = {method: evaluate(world, method, method) for method in METHODS}
    assert sum(passed) == 60 + 30, "every image of both splits once"
    assert {method: score.per_seed for method, (score, _) in together.items()} == {
        method: score.per_seed for method, score in alone.items()
    }
    told = content(*together["knn"])["features"]
    assert {piece["sha256"] for piece in told} == {
        piece["sha256"] for piece in content(*together["linear"])["features"]
    }
    assert together["classify"][1].events.of("features")[-1:] == [
        "test: 0 images through the model, 30 had been through before"
    ]


def test_what_decides_features_tells_them_apart(world, passed):
    evaluate(world, "first", "knn")
    before = sum(passed)
    evaluate(world, "again", "knn", neighbours=3)
    assert sum(passed) == before, "neighbours decide nothing"
    differing = {"size": {"image_px": 24}, "cut": {"eval_resize": "resmall_crop"}, "half": {"precision": "bf16"},
                 "other": {"features": "untrained"}}  # fmt: skip
    for node, changed in differing.items():
        passed.clear()
        evaluate(world, node, "knn", **changed)
        assert sum(passed) >= 90, node
    passed.clear()
    evaluate((world[0], world[1], weights(world[0], "others", seed=1)), "weights", "knn")
    assert sum(passed) == 90


def test_running_at_once_they_take_turns(world, passed):
    turns, scores = Turns(), {}

    def work(method):
        scores[method] = evaluate(world, method, method, turns=turns)

    threads = [threading.Thread(target=work, args=(method,)) for method in METHODS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores.keys() == METHODS.keys() and sum(passed) == 90


class Dying(InProcessCluster):
    """Ends as a killed driver does, before the task of that name."""

    def __init__(self, before):
        super().__init__()
        self.before = before

    def fan(self, fn, items, **kwargs):
        if any(str(item).startswith(self.before) for item in items):
            raise KeyboardInterrupt
        yield from super().fan(fn, items, **kwargs)


def test_a_resubmit_takes_what_the_killed_attempt_left(world, passed):
    with pytest.raises(KeyboardInterrupt):
        evaluate(world, "probe", "linear", cluster=Dying("features-test"))
    assert sum(passed) == 60
    score, _ = evaluate(world, "probe", "linear", attempt="a2")
    assert sum(passed) == 90 and score.per_seed == evaluate(world, "fresh", "linear", run_name="fresh")[0].per_seed


def test_a_failed_part_leaves_the_others(world, passed, monkeypatch):
    monkeypatch.setattr(frozen, "PART_IMAGES", 20)

    class Failing(InProcessCluster):
        def fan(self, fn, items, **kwargs):
            yield from super().fan(fn, [one for one in items if str(one) != "features-train-20"], **kwargs)
            for one in items:
                if str(one) == "features-train-20":
                    yield Done(one, error=StageError("extract", "lost"))

    with pytest.raises(StageError, match="lost"):
        evaluate(world, "probe", "linear", cluster=Failing())
    passed.clear()
    evaluate(world, "probe", "linear", attempt="a2")
    assert sum(passed) == 20 + 30


def test_features_that_are_not_what_was_committed_are_refused(world):
    score, ctx = evaluate(world, "probe", "knn")
    piece = content(score, ctx)["features"][0]
    store = ctx.shared.run.child(piece["uri"].partition(f"{SHARED}/")[0][len(ctx.shared.run.uri) + 1 :] + SHARED)
    at = f"{piece['uri'].rsplit('/', 1)[-1]}/{piece['at']}"
    data = store.read(at)
    store.write(at, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="record says"):
        evaluate(world, "next", "fewshot")


@pytest.mark.parametrize("split", ["test", "val"])
def test_nothing_of_the_scored_split_before_the_choice(world, split):
    sent = []

    class Watching(InProcessCluster):
        def fan(self, fn, items, **kwargs):
            for done in super().fan(fn, items, **kwargs):
                sent.append((done.item, ctx.out.node.size(ctx.out.at("choice.json")) is not None))
                yield done

    path, data, given = world
    if split == "val":
        data = shards(path, "with-val", counts={"train": 60, "val": 30, "test": 30})
    for method in ("linear", "fewshot"):
        sent.clear()
        node = f"watched-{method}-{split}"
        ctx = make_context(path, node, EvaluateResources(), run=node)
        object.__setattr__(ctx, "cluster", Watching())
        config = EvaluateConfig(method=method, seeds=(0,), split=split, **METHODS[method])
        score = run(config, Inputs({"data": [data], "weights": [given]}), ctx)
        assert score.has("choice.json")
        for item, chosen in sent:
            about = getattr(item, "about", item)
            opens = getattr(item, "split", "") == split or (isinstance(item, FitTask) and item.test is not None)
            assert opens == chosen, f"{item} opens the scored split only after the choice"
            assert any(file.path.startswith(f"{split}-") for file in about.data.files) == chosen
        leaking = replace(
            next(item for item, _ in sent if isinstance(item, ExtractTask)), split=split, rows=np.arange(3)
        )
        with pytest.raises(IntegrityError, match=f"{split}-000000"):  # a planted leak: asks before it has chosen
            features.extract(leaking)


def test_penalties_are_compared_on_images_that_no_support_has(world):
    score, ctx = evaluate(world, "probe", "fewshot", l2_shared=(1.0, 1024.0, 1e6))
    told = content(score, ctx)
    assert told["dev_by_l2"].keys() == told["by_l2"].keys() == {"5", "1"}
    assert content(score, ctx, "choice.json")["dev_by_l2"] == told["dev_by_l2"]
    assert [one["1024.0"] for one in told["by_l2"]["5"]] == told["by_shots"]["5"], "the fixed penalty is among them"
    with pytest.raises(StageError, match="all of train"):
        evaluate(world, "greedy", "fewshot", shots=(20,))
    with pytest.raises(ValueError, match="belongs to method fewshot"):
        EvaluateConfig(method="knn", l2_shared=(1.0,))


def test_who_waits_can_be_stopped(world):
    path, _, _ = world
    ctx = make_context(path, "waiting", EvaluateResources())
    turns = Turns()
    first, second = (SharedPieces(ctx.shared.run, "a1", ctx.fence, turns) for _ in range(2))
    with first.alone({"what": "x"}):
        ctx.fence.stop("preempted")
        with pytest.raises(Stopped, match="preempted"), second.alone({"what": "x"}):
            raise AssertionError("both were let in")
    with second.alone({"what": "x"}) as out:
        assert out.header == first.run.child(f"{SHARED}/{out.node.uri.rsplit('/', 1)[-1]}").read("a1/attempt.json")


@dataclass(frozen=True)
class LostFence(HeldFence):
    """Another driver holds the run."""

    def check(self):
        raise LeaseLost("commit", "another driver holds the run")


def test_a_driver_that_lost_the_run_shares_nothing(world, passed):
    path, data, given = world
    ctx = make_context(path, "probe", EvaluateResources(batch_images=16), run="shared")
    object.__setattr__(ctx, "shared", replace(ctx.shared, fence=LostFence(path)))
    with pytest.raises(LeaseLost):
        run(EvaluateConfig(method="knn", eval_resize="squash"), Inputs({"data": [data], "weights": [given]}), ctx)
    passed.clear()
    evaluate(world, "probe", "knn", attempt="a2")
    assert sum(passed) == 90, "what it had computed was never made true"


def test_speed_is_recorded_beside_the_score_and_not_in_its_files(world):
    score, ctx = evaluate(world, "probe", "knn")
    assert score.metrics["inference_images_per_second"] > 0 and torch.get_num_threads() >= 1
    assert "images_per_second" not in json.dumps(content(score, ctx) | {"metrics": None})
