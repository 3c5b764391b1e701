"""One trial against a plain torch loop, step by step."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from inprocess import make_context
from synthetic import TINY, shards, weights
from torch.nn import functional as F

from vitpipe.infra.errors import UsageError
from vitpipe.stages.finetune.config import FinetuneConfig, check_inputs
from vitpipe.stages.finetune.estimate import check_kept_head
from vitpipe.stages.finetune.protocol import Trial, TrialTask
from vitpipe.stages.finetune.subsets import training_subset
from vitpipe.stages.finetune.trial import run_trial, starting_model
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.images.train import TrainImages
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.native import load_native, load_weights

STEPS, WARMUP, BATCH, PEAK, SEED = 8, 2, 12, 0.05, 1


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("trial")
    return path, shards(path, noise=300.0), weights(path)


def task_for(world, node, micro_batch=BATCH, **changes) -> TrialTask:
    path, data, pretrained = world
    config = FinetuneConfig.model_validate({
        "batch_images": BATCH, "total": f"{STEPS} steps", "warmup": f"{WARMUP} steps", "peak_lr": PEAK,
        "train_per_class": 8, "precision": "fp32", "crop": "random_resized", **changes,
    })  # fmt: skip
    return TrialTask(
        trial=Trial("test", PEAK, SEED), config=config, micro_batch=micro_batch, threads=2, cpus=1, data=data,
        weights=None if config.model else pretrained, keep_weights=True, choice_sha256="x",
        context=make_context(path, node, None).task,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trial(world):
    task = task_for(world, "one")
    return task, run_trial(task)[0]


def test_equals_a_plain_torch_loop(world, trial):
    _, outcome = trial
    path, data, pretrained = world
    settings, state = load_weights(pretrained, path / "plain")
    model = ViT(settings.model_copy(update={"classes": 3}))
    model.load_state_dict(state | {"head.weight": torch.zeros(3, 32), "head.bias": torch.zeros(3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=PEAK, momentum=0.9, weight_decay=0)
    train = EvalImages.labels_of(data, "train", path / "cache")
    keep = training_subset(np.asarray(train), data.manifest_sha256, SEED, 8)
    images = TrainImages(data, "train", 16, AugmentSettings(), SEED, path / "cache", keep=keep)

    for step in range(STEPS):
        batch = images.micro_batch(step * BATCH, BATCH)
        loss = F.cross_entropy(model(batch.images_BCHW), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - WARMUP) / (STEPS - WARMUP)))
        optimizer.param_groups[0]["lr"] = PEAK * cosine * min(1, step / WARMUP)
        optimizer.step()
        assert outcome.losses[step] == pytest.approx(loss.item(), abs=1e-6), f"step {step}"

    model.eval()
    test = EvalImages(data, "test", 16, "squash", path / "cache")
    with torch.inference_mode():
        whole = next(test.batches(100))
        logits = model(whole.images_BCHW)
    assert outcome.accuracy == float((logits.argmax(1) == whole.labels).double().mean())
    assert outcome.loss == pytest.approx(float(F.cross_entropy(logits, whole.labels)), abs=1e-6)
    assert outcome.losses[0] == pytest.approx(math.log(3), abs=1e-6), "a zero head knows nothing"


MODERN = {
    "layer_decay": 0.6, "label_smoothing": 0.1, "augment": {"mixup": 0.8, "cutmix": 1.0}, "end_lr": 1e-4,
    "clip_norm": None,
}  # fmt: skip
KINDS = [
    {"kind": "adamw", "betas": [0.9, 0.95], "weight_decay": 0.05},
    {"kind": "lion", "weight_decay": 0.1, "decays": "all"},
    {"kind": "sgd", "momentum": 0.8, "weight_decay": 0.1},
]


class PlainLion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. 2023, line by line."""

    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                moment = self.state[weight].setdefault("m", torch.zeros_like(weight))
                direction = (0.9 * moment + (1 - 0.9) * weight.grad).sign()
                with torch.no_grad():
                    weight.sub_(group["lr"] * (direction + group["weight_decay"] * weight))
                self.state[weight]["m"] = 0.99 * moment + (1 - 0.99) * weight.grad


def plain_optimizer(fields, groups):
    if fields["kind"] == "adamw":
        return torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95))
    return PlainLion(groups, {"lr": PEAK}) if fields["kind"] == "lion" else torch.optim.SGD(groups, PEAK, momentum=0.8)


@pytest.mark.parametrize("fields", KINDS, ids=lambda fields: fields["kind"])
def test_other_optimisers_with_layer_decay_equal_a_plain_torch_loop(world, fields):
    task = task_for(world, f"by-{fields['kind']}", optimizer=fields, peak_lr=0.01, **MODERN)
    outcome, _ = run_trial(replace(task, trial=Trial("test", 0.01, SEED)))
    path, data, pretrained = world
    settings, state = load_weights(pretrained, path / "plain")
    model = ViT(settings.model_copy(update={"classes": 3}))
    model.load_state_dict(state | {"head.weight": torch.zeros(3, 32), "head.bias": torch.zeros(3)})
    groups = []
    for name, weight in model.named_parameters():  # util/lr_decay.py of MAE, two blocks: 3 is the last layer
        early = name in ("cls_token", "pos_embed") or name.startswith("patch_embed")
        layer = 0 if early else int(name.split(".")[1]) + 1 if name.startswith("blocks") else 3
        spared = weight.ndim == 1 or name in ("cls_token", "pos_embed")
        decay = 0.0 if spared and fields.get("decays") != "all" else fields["weight_decay"]
        groups.append({"params": [weight], "lr_scale": 0.6 ** (3 - layer), "weight_decay": decay})
    by_hand = [group.pop("weight_decay") for group in groups] if fields["kind"] == "sgd" else [None] * len(groups)
    optimizer = plain_optimizer(fields, groups)
    labels = EvalImages.labels_of(data, "train", path / "cache")
    keep = training_subset(np.asarray(labels), data.manifest_sha256, SEED, 8)
    images = TrainImages(data, "train", 16, AugmentSettings(mixup=0.8, cutmix=1.0), SEED, path / "cache", keep=keep)
    for step in range(STEPS):
        batch = images.micro_batch(step * BATCH, BATCH)
        target = 0.9 * batch.labels + 0.1 / 3
        loss = -(target * model(batch.images_BCHW).log_softmax(dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - WARMUP) / (STEPS - WARMUP)))
        lr = (1e-4 + (0.01 - 1e-4) * cosine) * min(1, step / WARMUP)
        for group, decay in zip(optimizer.param_groups, by_hand, strict=True):
            group["lr"] = lr * group["lr_scale"]
            if decay:  # decoupled: torch's SGD would add it to the gradient
                with torch.no_grad():
                    group["params"][0].mul_(1 - group["lr"] * decay)
        optimizer.step()
        assert outcome.losses[step] == pytest.approx(loss.item(), abs=2e-6), f"step {step}"
    _, kept = load_native(task.context.scratch / "test-lr0.01-seed1")
    for name, weight in model.named_parameters():
        if fields["kind"] == "lion":  # signs of gradients that are 0 but for rounding, as of a key's bias, mean nothing
            assert name.endswith("qkv.bias") or ((kept[name] - weight).abs() < 1e-6).float().mean() > 0.99, name
        else:
            torch.testing.assert_close(kept[name], weight.detach(), atol=2e-6, rtol=1e-5)


def test_a_kept_head_goes_on_where_it_was(world):
    path, data, _ = world
    given = weights(path, "named", classes=3, names=("red", "green", "blue"))
    task = replace(task_for(world, "kept", head_init="keep"), weights=given)
    _, state = load_weights(given, path / "named-weights")
    start = starting_model(task).state_dict()
    assert torch.equal(start["head.weight"], state["head.weight"]) and start["head.weight"].any()
    outcome, _ = run_trial(task)
    assert outcome.losses[0] != pytest.approx(math.log(3), abs=1e-3), "its head knows something, if not the truth"
    assert check_kept_head(data, given) == ""
    unnamed = weights(path, "unnamed", classes=3, names=())
    assert check_kept_head(data, unnamed).endswith("that it counts them as the data do is assumed")
    moved = weights(path, "moved", classes=3, names=("red", "blue", "green"))
    with pytest.raises(UsageError, match=r"class 1 is 'blue' there and 'green' in the data\. Leave head_init out"):
        check_kept_head(data, moved)
    with pytest.raises(UsageError, match="it has 5 classes, the data have 3"):
        check_kept_head(data, world[2])
    assert "of which there are none" in check_inputs(task.config, {"data"})[0]


def test_what_varies_images_and_labels_does_not_depend_on_the_micro_batch(world):
    changes = {"optimizer": KINDS[2], "ema": {"decay": 0.9}, **MODERN}  # AdamW would make steps of what is rounding
    whole, _ = run_trial(task_for(world, "mixed", **changes))
    for size in (1, 4):  # 1 cuts every pair in two
        small, _ = run_trial(task_for(world, f"mixed-by-{size}", micro_batch=size, **changes))
        np.testing.assert_allclose(small.losses, whole.losses, atol=2e-6)
        assert small.accuracy == whole.accuracy and small.loss == pytest.approx(whole.loss, abs=2e-6), "averaged alike"
    other, _ = run_trial(task_for(world, "mixed-less", **changes | {"augment": {"mixup": 0.8}}))
    assert np.abs(np.subtract(other.losses, whole.losses)).max() > 1e-3, "the comparison can fail"


def test_is_a_pure_function_of_its_task(world, trial):
    _, outcome = trial
    again, _ = run_trial(task_for(world, "again"))
    assert again.losses == outcome.losses and again.accuracy == outcome.accuracy
    assert [file.sha256 for file in again.weights] == [file.sha256 for file in outcome.weights]


def test_a_smaller_micro_batch_takes_the_same_steps(world, trial):
    _, outcome = trial
    small, _ = run_trial(task_for(world, "small", micro_batch=3))
    np.testing.assert_allclose(small.losses, outcome.losses, atol=2e-6)  # another order of the same sums in fp32


@pytest.mark.parametrize(
    "change",
    [
        {"clip_norm": 0.05},
        {"dropout": 0.2},
        {"warmup": "0 steps"},
        {"stochastic_depth": 0.5},
        {"layer_decay": 0.9},
        {"end_lr": 0.01},
        {"label_smoothing": 0.1},
        {"augment": {"randaugment": {}}},
        {"optimizer": {"momentum": 0.5}},
    ],
    ids=str,
)
def test_a_changed_recipe_is_another_training(world, trial, change):
    _, outcome = trial
    other, _ = run_trial(task_for(world, "other-" + next(iter(change)).replace("_", "-"), **change))
    assert other.losses != outcome.losses


def test_bf16_trains_close_to_fp32(world, trial):
    _, outcome = trial
    other, _ = run_trial(task_for(world, "bf16", precision="bf16"))
    assert other.losses != outcome.losses
    np.testing.assert_allclose(other.losses, outcome.losses, atol=0.05)  # 8 bits of mantissa, 8 steps


def test_averaged_weights_are_the_running_mean(world, trial):
    task = task_for(world, "averaged", ema={"decay": 0.5}, total="1 steps", warmup="0 steps")
    averaged, _ = run_trial(task)
    plain, _ = run_trial(task_for(world, "plain", total="1 steps", warmup="0 steps"))
    folder = lambda one: one.context.scratch / str(one.trial)  # noqa: E731
    start = starting_model(task).state_dict()
    _, kept = load_native(folder(task))
    _, stepped = load_native(folder(task_for(world, "plain", total="1 steps", warmup="0 steps")))
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, (start[name] + stepped[name]) / 2)
    assert averaged.losses == plain.losses


def test_from_scratch_starts_at_random_by_seed_and_learns(world):
    task = task_for(world, "scratch", model=TINY.model_dump())
    outcome, _ = run_trial(task)
    assert outcome.losses[-1] < outcome.losses[0]
    again = starting_model(task).state_dict()
    other = starting_model(TrialTask(**{**vars(task), "trial": Trial("test", PEAK, SEED + 1)})).state_dict()
    assert not torch.equal(again["blocks.0.mlp.fc1.weight"], other["blocks.0.mlp.fc1.weight"])
    assert not again["head.weight"].any()
