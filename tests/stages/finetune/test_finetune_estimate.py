"""What the plan says of a fine-tuning and of an evaluation."""

import re
import subprocess
import sys

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.given_machines import gpu_kinds
from vitpipe.stages.costs.machines import ClusterFacts
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.estimate import estimate as estimate_evaluation
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.estimate import estimate, memory_bytes, trial_work, with_gpus
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.image_costs import image_work
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.flops import activation_bytes, forward_macs, num_parameters, train_flops_per_image

B16 = ModelSettings(variant="B/16", image_px=224, classes=21843, representation="width")
DATA = Estimate(splits={"train": 1000, "test": 500}, num_classes=10)
RECIPE = {"batch_images": 100, "total": "10 epochs", "peak_lr": [0.01, 0.03], "dev": 0.1, "seeds": [0, 1, 2]}
KNOWN = Known(gpus=4, gpu_flops=1e14)


def config(**changes) -> FinetuneConfig:
    return FinetuneConfig.model_validate(RECIPE | changes)


def given(data=DATA, model=B16):
    return {"data": [data], "weights": [Estimate(model=model.model_dump(mode="json") if model else None)]}


def test_counts_both_phases():
    found = estimate(config(), FinetuneResources(), given(), KNOWN)
    steps = 2 * 90 + 3 * 100  # epochs of 900 images while sweeping, of 1000 after
    tuned = B16.model_copy(update={"classes": 10, "representation": "none"})
    assert (found.steps, found.images) == (steps, 100 * steps + 2 * 100 + 3 * 500)
    assert found.flops == 100 * steps * train_flops_per_image(tuned) + 1700 * 2 * forward_macs(tuned)
    started = 3600 * found.hours - found.flops / (1e14 * 3)
    assert 0 <= started < 10, "three of four GPUs have a trial, and each trial starts"
    assert found.model == tuned


def test_no_step_is_shorter_than_its_launches():
    """Ti/16, an image a pass: 100 passes a step of 38 operations of 12 blocks and 45, and 32 a step, of 5 us each."""
    tiny = ModelSettings(variant="Ti/16", image_px=224, classes=10)
    known = Known(gpus=4, gpu=gpu_kinds()["H100"])
    found = estimate(config(), FinetuneResources(micro_batch=1), given(model=tiny), known)
    step = (100 * (38 * 12 + 45) + 32) * 5e-6
    assert 5 * found.costs.step_seconds["compute"] == pytest.approx(found.images / 100 * step)


def test_trials_are_planned_with_the_part_of_a_gpu_that_they_will_get():
    small = ModelSettings(variant="Ti/16", image_px=64, classes=10)
    known, tuned = Known(gpus=4, gpu_flops=1e14), given(model=small)
    unsaid, eighth, whole = (
        estimate(config(), FinetuneResources(micro_batch=50, gpus_per_task=part), tuned, known).costs.phases
        for part in (None, 0.125, 1)
    )
    assert unsaid == eighth and {phase.gpus for phase in unsaid} == {0.125}
    assert unsaid[0].seconds >= whole[0].seconds and {phase.gpus for phase in whole} == {1}
    probe, asked = EvaluateConfig(method="fewshot", shots=(5,)), EvaluateResources(batch_images=8)
    assert {phase.gpus for phase in estimate_evaluation(probe, asked, tuned, known).costs.phases} == {0.125}


def test_a_trial_that_its_gpu_does_not_hold_is_told_with_what_it_does():
    large = B16.model_copy(update={"image_px": 384})
    known, data = Known(gpus=8, gpu_flops=4e14, gpu_bytes=16e9), given(model=large)

    def said(**resources):
        notes = estimate(config(image_px=384), FinetuneResources(**resources), data, known).notes
        return next((note for note in notes if "part of a GPU has" in note), "")

    (fits,) = re.findall(
        r"a task needs [0-9.]+ GB, and its part of a GPU has 16: try micro_batch (\d+)$", said(micro_batch=100)
    )
    assert said(micro_batch=int(fits)) == "" != said(micro_batch=2 * int(fits))
    assert said(micro_batch=1, gpus_per_task=0.01).endswith("has 0.16: take a larger part of one")
    probe = EvaluateConfig(method="fewshot", shots=(5,))
    looks = estimate_evaluation(probe, EvaluateResources(batch_images=8192, gpus_per_task=0.125), data, known).notes
    assert any("its part of a GPU has 2: try batch_images " in note for note in looks)
    assert not any("part of a GPU" in one for one in estimate_evaluation(probe, EvaluateResources(), data, known).notes)


def test_a_task_that_the_only_machine_does_not_hold_is_told_too():
    def said(host_bytes, **resources):
        known = Known(cores=2, is_one_machine=True, host_bytes=host_bytes)
        notes = estimate(config(), FinetuneResources(**resources), given(), known).notes
        return next((note for note in notes if "and this machine has" in note), "")

    (fits,) = re.findall(
        r"a task needs [0-9.]+ GB, and this machine has 2: try micro_batch (\d+)$", said(2e9, micro_batch=100)
    )
    assert said(2e9, micro_batch=int(fits)) == "" == said(0.0) != said(2e9, micro_batch=2 * int(fits))
    assert said(1e8, micro_batch=1).endswith("has 0.1: take a larger machine")


def test_images_are_made_on_the_cores_that_there_are():
    """Sixteen trials on a machine of sixteen cores have one each; two on it have the two that their threads take."""
    tiny, machine = ModelSettings(variant="Ti/16", image_px=224, classes=10), ClusterFacts(cores_per_machine=16)
    known, tuned = Known(gpus=8, gpu_flops=4e14, cluster=machine), given(model=tiny)
    for rates, cores in ((16, 1), (2, 2)):
        swept = config(peak_lr=[0.001 * n for n in range(1, rates + 1)], sweep_seeds=1)
        found = estimate(swept, FinetuneResources(gpus_per_task=0.5), tuned, known).costs
        assert (found.workers, found.cores_per_worker) == (max(rates, 3), cores)


def test_no_evaluation_is_shorter_than_its_launches():
    """Ti/16 in bf16, an image a pass: 20 operations of 12 blocks and 12, of 5 us; drawn images, then scored ones."""
    tiny, known = ModelSettings(variant="Ti/16", image_px=224, classes=10), Known(gpus=4, gpu=gpu_kinds()["H100"])
    probe = EvaluateConfig(method="fewshot", shots=(5,), precision="bf16")
    found = estimate_evaluation(probe, EvaluateResources(batch_images=1, gpus_per_task=1), given(model=tiny), known)
    assert sum(phase.held_seconds for phase in found.costs.phases) == pytest.approx(
        found.images * (12 * 20 + 12) * 5e-6 + 2 * known.cluster.task_start_s
    )


UNKNOWN_SPEED = gpu_kinds()["H100"].model_copy(update={"peak_flops_fp32": None})


@pytest.mark.parametrize("known", [Known(cores=2), Known(gpus=4, gpu_flops=1e14), Known(gpus=4, gpu=UNKNOWN_SPEED)])
def test_raw_pixels_take_the_time_of_their_images_alone(known):
    """They need no model, and no GPU's speed; their size is asked for, or that of the weights beside them."""
    probe = EvaluateConfig(method="fewshot", features="raw_pixels", shots=(5,), image_px=32)
    found = estimate_evaluation(probe, EvaluateResources(), {"data": [DATA]}, known)
    assert found.flops == 0 and found.costs.step_seconds["compute"] == 0 and not found.costs.needed
    work = image_work(AugmentSettings(crop="none", flip=False), DATA, 32).milliseconds() / 1000
    held = sum(phase.held_seconds for phase in found.costs.phases)
    assert held == pytest.approx(found.images * work + 2 * known.cluster.task_start_s)
    assert found.memory_bytes == found.images * 4 * 3 * 32 * 32 and not found.notes
    assert found.hours == pytest.approx(sum(phase.seconds for phase in found.costs.phases) / 3600)
    beside = probe.model_copy(update={"image_px": None})
    large = estimate_evaluation(beside, EvaluateResources(), given(), known)
    assert large.memory_bytes == found.memory_bytes * 49 and large.hours > found.hours
    assert estimate_evaluation(beside, EvaluateResources(), {"data": [DATA]}, known).hours is None


def test_fewer_images_and_one_rate_cost_less():
    small = estimate(config(train_per_class=5, peak_lr=0.01), FinetuneResources(), given(), KNOWN)
    assert small.steps == 3 * 5


def test_knows_what_it_does_not_know():
    assert estimate(config(), FinetuneResources(), given(data=Estimate()), KNOWN).steps is None
    assert estimate(config(), FinetuneResources(), given(model=None), KNOWN).steps is None


def test_refuses_at_plan_what_cannot_work():
    with pytest.raises(UsageError, match=r"train \(1000\)"):
        estimate(config(), FinetuneResources(), given(data=Estimate(splits={"train": 1000}, num_classes=10)), KNOWN)
    with pytest.raises(UsageError, match="warmup 500"):
        estimate(config(warmup="500 steps"), FinetuneResources(), given(), KNOWN)
    with pytest.raises(
        UsageError, match=r"^Cannot fine-tune at 8 px: image_px 8 is smaller than one patch of 16 px\. Ch"
    ):
        estimate(config(image_px=8), FinetuneResources(), given(), KNOWN)
    probe = EvaluateConfig(method="fewshot", image_px=8)
    with pytest.raises(UsageError, match=r"^Cannot evaluate weights at 8 px: image_px 8 is smaller than one patch"):
        estimate_evaluation(probe, EvaluateResources(), given(), KNOWN)


@pytest.mark.parametrize("splits", [{"train": 1000, "val": 200}, {"train": 1000, "val": 0}])
def test_a_split_that_is_not_there_blocks_the_plan_and_val_is_taken_when_named(splits):
    data, fewshot = Estimate(splits=splits, num_classes=10), EvaluateConfig(method="fewshot", shots=(5,), seeds=(0,))
    named, classify = fewshot.model_copy(update={"split": "val"}), EvaluateConfig(method="classify")
    for ask in (
        lambda: estimate(config(), FinetuneResources(), given(data=data), KNOWN),
        lambda: estimate(config(), FinetuneResources(), given(data=data, model=None), KNOWN),
        lambda: estimate_evaluation(fewshot, EvaluateResources(), given(data=data), KNOWN),
        lambda: estimate_evaluation(classify, EvaluateResources(), given(data=data), KNOWN),
    ):
        with pytest.raises(UsageError, match=r"no split test, only train \(1000\), val .*Set `split: val`, or ingest"):
            ask()
    counted = max(1, splits["val"])
    tuned = estimate(config(split="val", peak_lr=0.01, seeds=[0]), FinetuneResources(), given(data=data), KNOWN)
    assert tuned.images == 100 * 100 + counted
    assert estimate_evaluation(named, EvaluateResources(), given(data=data), KNOWN).images == counted + 50


def test_an_evaluation_counts_forward_passes():
    fewshot = EvaluateConfig(method="fewshot", shots=(5,), seeds=(0, 1))
    found = estimate_evaluation(fewshot, EvaluateResources(), given(), KNOWN)
    assert found.images == 500 + 5 * 10 * 2
    assert found.flops == found.images * 2 * forward_macs(B16)
    untrained = fewshot.model_copy(update={"features": "untrained"})
    assert estimate_evaluation(untrained, EvaluateResources(), given(), KNOWN).images == 2 * found.images
    assert estimate_evaluation(fewshot, EvaluateResources(), given(data=Estimate()), KNOWN).images is None


@pytest.mark.parametrize("room", ["finetune", "evaluate", "report"])
def test_arranging_imports_no_torch(room):
    heavy = "{'torch', 'deepspeed', 'webdataset', 'ray', 'boto3', 'matplotlib'}"
    code = f"import sys; from vitpipe.stages.{room} import estimate, run; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_small_trial_takes_a_part_of_a_gpu_and_a_large_one_all_of_it():
    small = ModelSettings.model_validate({"variant": "Ti/16", "image_px": 64, "classes": 10})
    large = B16.model_copy(update={"image_px": 384})
    ask = FinetuneResources(micro_batch=50)
    assert [with_gpus(config(), ask, model, 8).gpus_per_task for model in (small, large)] == [0.125, 1.0]
    assert FinetuneResources(gpus_per_task=2).on_gpus(8, 1, 1, 1.0).gpus_per_task == 2, "who says how much gets it"
    assert FinetuneResources().on_gpus(0, 1, 1, 1.0).gpus_per_task is None, "no GPU, no share"


def test_no_gpu_stands_idle_for_tasks_that_would_fill_it():
    def part(tasks, busy):
        return FinetuneResources().on_gpus(8, 1e9, tasks, busy).gpus_per_task

    assert [part(tasks, 1.0) for tasks in (3, 8, 9, 16, 24, 100)] == [1, 1, 1, 0.5, 0.5, 0.125]
    assert [part(3, busy) for busy in (0.0, 0.1, 0.2, 0.6)] == [0.125, 0.125, 0.25, 1], "it would be idle anyway"
    small = ModelSettings.model_validate({"variant": "S/16", "image_px": 224, "classes": 10})
    ask = FinetuneResources(micro_batch=25)
    assert memory_bytes(config(), ask, small) < 0.5 * 16e9
    assert [with_gpus(config(), ask, small, gpus).gpus_per_task for gpus in (1, 8)] == [0.5, 1]


def test_memory_counts_what_the_optimiser_and_the_average_keep_of_each_weight():
    tuned = config().architecture(B16, 10)
    asked = FinetuneResources()
    weights, base = num_parameters(tuned), memory_bytes(config(), asked, tuned)
    changes = {"adamw": ({"kind": "adamw"}, 4), "lion": ({"kind": "lion"}, 0), "no momentum": ({"momentum": 0}, -4)}
    for name, (optimizer, more) in changes.items():
        assert memory_bytes(config(optimizer=optimizer), asked, tuned) - base == more * weights, name
    assert memory_bytes(config(ema={"decay": 0.9}), asked, tuned) - base == 4 * weights
    unusual = estimate(config(optimizer={"kind": "lion"}, peak_lr=0.3), FinetuneResources(), given(), KNOWN)
    assert any("lion" in note for note in unusual.notes)


def test_a_trial_is_as_long_as_its_own_phase():
    tuned = config().architecture(B16, 10)
    work = trial_work(config(), tuned, DATA.splits, 10)
    sweep, final = (work.seconds(phase, KNOWN) for phase in ("sweep", "test"))
    assert final == pytest.approx(work.final_flops / 1e14) and sweep == pytest.approx(work.sweep_flops / 1e14)


H14 = ModelSettings.model_validate({"variant": "H/14", "image_px": 518, "classes": 1000, "gelu": "tanh"})


def test_memory_is_of_the_micro_batch_that_is_asked_for():
    """H/14 at 518 px in passes of 8 images, as Table 2 wants it, fits where passes of 64 do not."""
    recipe = config(batch_images=512, total="20k steps", image_px=518, ema={"decay": 0.9999})
    given_h14 = given(Estimate(splits={"train": 1_281_167, "test": 50_000}, num_classes=1000), H14)
    asked = {size: FinetuneResources(micro_batch=size) for size in (64, 16, 8)}
    found = {size: estimate(recipe, one, given_h14, KNOWN).memory_bytes for size, one in asked.items()}
    parameters, each = num_parameters(H14), activation_bytes(H14)
    assert found == {size: 16 * parameters + size * each for size in asked}
    assert found[8] < 40e9 < 100e9 < found[64]
    plain = recipe.model_copy(update={"ema": None})
    assert memory_bytes(recipe, asked[8], H14) - memory_bytes(plain, asked[8], H14) == 4 * parameters
    whole = recipe.model_copy(update={"precision": "fp32"})
    assert memory_bytes(whole, asked[8], H14) - memory_bytes(recipe, asked[8], H14) == 8 * each
    assert memory_bytes(recipe, FinetuneResources(), H14) == found[64], "the largest divisor up to 64 when left out"


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_an_evaluation_needs_memory_for_the_batch_that_is_asked_for(precision):
    ask = EvaluateConfig(method="fewshot", shots=(5,), seeds=(0,), precision=precision)
    less, more = (
        estimate_evaluation(ask, EvaluateResources(batch_images=size), given(), KNOWN).memory_bytes for size in (8, 64)
    )
    kept = activation_bytes(B16, recompute=True) * (2 if precision == "fp32" else 1)
    assert more - less == 56 * kept
