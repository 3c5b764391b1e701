"""The plan's numbers: the paper's recipe, and DeepSpeed's published memory table."""

import pytest
from tiny_pretraining import recipe

from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.pretrain.memory import terms
from vitpipe.stages.training.config import BUCKET_ELEMENTS
from vitpipe.stages.vit.flops import num_parameters

FEW = Estimate(splits={"train": 96}, num_classes=10)
I21K = Estimate(splits={"train": 14_197_122}, num_classes=21_843)


def paper(variant: str = "L/16", **changes: object) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {"model": {"variant": variant, "image_px": 224}, "batch_images": 4096, "total": "90 epochs", **changes}
    )


def test_the_papers_l16_on_imagenet_21k() -> None:
    found = estimate(paper(), PretrainResources(workers=8, gpus_per_worker=1), {"shards": (I21K,)}, Known(gpus=8))
    assert found.steps == 311_948
    assert found.images == 311_948 * 4096
    assert found.flops == pytest.approx(4.72e20, rel=0.01)  # 369.3 GF an image and the larger head
    assert found.hours is not None
    assert found.flops / 400e12 / 3600 < found.hours * 8 < 1.02 * found.flops / 400e12 / 3600, "and its collectives"


def test_an_elastic_gang_is_planned_as_large_as_its_gpus_hold() -> None:
    elastic = PretrainResources(workers=(4, 8), gpus_per_worker=1)
    for gpus, ranks in ((2, 4), (4, 4), (6, 6), (8, 8), (64, 8)):
        costs = estimate(paper(), elastic, {"shards": (I21K,)}, Known(gpus=gpus)).costs
        assert costs is not None and costs.workers == ranks


def test_without_shards_nothing_is_claimed() -> None:
    assert estimate(paper(), PretrainResources(), {"shards": (Estimate(),)}, Known()).steps is None


STATE = ("weights", "optimiser", "gradients")


def of_state(zero: int, workers: int, precision: str = "bf16", **more: object) -> float:
    """Bytes a parameter of L/16's weights, gradients and moments on one of some GPUs."""
    settings = ModelSettings(variant="L/16", image_px=224, classes=1000)
    resources = PretrainResources.model_validate({"zero": zero, "workers": workers, "micro_batch": 1, **more})
    parameters = num_parameters(settings)
    found = terms(paper(precision=precision), resources, settings, parameters, gpu=True)
    return sum(found[name] for name in STATE) / parameters


@pytest.mark.parametrize(
    ("zero", "workers", "published", "more"),
    [
        (0, 64, 16, 6), (1, 64, 4 + 12 / 64, 6), (2, 64, 2 + 14 / 64, 2 / 64), (3, 64, 16 / 64, 2 / 64),
        (2, 8, 2 + 14 / 8, 2 / 8), (3, 8, 16 / 8, 2 / 8),
    ],
)  # fmt: skip
def test_zero_splits_the_state_as_published(zero: int, workers: int, published: float, more: float) -> None:
    """Rajbhandari et al. 2020, Figure 1: 120 / 31.4 / 16.6 / 1.9 GB for 7.5B parameters on 64 workers.

    Beyond that: sums of gradients in fp32, at stages 0 and 1 whole, beside those of a pass in bf16 and a copy of these,
    at 2 and 3 of a share and instead of them; and what ZeRO 3 has gathered.
    """
    if workers == 64:
        assert 7.5 * published == pytest.approx((120, 31.4, 16.6, 1.88)[zero], rel=3e-3)
    gathered = 2 * 2 * BUCKET_ELEMENTS / num_parameters(ModelSettings(variant="L/16", image_px=224, classes=1000))
    expected = published + more + (gathered if zero == 3 else 0)
    assert of_state(zero, workers) == pytest.approx(expected, rel=1e-6)


def test_zero_3_splits_everything_but_what_it_gathers() -> None:
    gathered = of_state(3, 2**20)
    assert of_state(3, 64) - gathered == pytest.approx((of_state(3, 1) - gathered) / 64, rel=1e-3)


@pytest.mark.parametrize(
    ("variant", "precision", "changes", "grows"),
    [
        ("L/16", "fp32", {"zero": 1}, "optimiser"), ("L/16", "bf16", {"zero": 2}, "gradients"),
        ("L/16", "fp32", {"zero": 3}, "weights"), ("L/16", "bf16", {"micro_batch": 1}, "activations"),
        ("L/16", "bf16", {"activation_checkpointing": "blocks"}, "activations"),
        ("H/14", "bf16", {"zero": 1, "workers": 64}, "optimiser"), ("H/14", "bf16", {"offload": "cpu"}, "optimiser"),
    ],
)  # fmt: skip
def test_each_way_out_takes_its_own_term_away(variant: str, precision: str, changes: dict, grows: str) -> None:
    settings = ModelSettings(variant=variant, image_px=224, classes=21_843)
    usual: dict[str, object] = {"workers": 8, "zero": max(0, int(changes.get("zero", 2)) - 1), "micro_batch": 64}
    before, after = (
        terms(paper(variant, precision=precision), PretrainResources.model_validate(one), settings, 10**8, gpu=True)
        for one in (usual, usual | changes)
    )
    assert after[grows] < 0.8 * before[grows]


def test_a_gpu_holds_whole_buckets_and_no_copy_to_save_from() -> None:
    settings = ModelSettings(variant="Ti/16", image_px=224, classes=10)
    resources = PretrainResources(zero=2, micro_batch=1)
    on_gpu, on_cpu = (terms(paper("Ti/16"), resources, settings, 5_000_000, gpu) for gpu in (True, False))
    later = 4 * 5_000_000  # a later pass's gradients beside the sums
    # two to write by turns, and the fp32 copy that is sent
    assert on_gpu["passing"] == (2 * 2 + 4) * BUCKET_ELEMENTS + later
    assert on_cpu["passing"] == (2 + 4) * 5_000_000 + later
    assert "checkpoint" not in on_gpu and on_gpu["freed"] == 0


def test_recomputing_leaves_half_of_what_it_frees_to_malloc_on_a_cpu_alone() -> None:
    settings, kept = ModelSettings(variant="S/16", image_px=224, classes=10), {}
    for gpu in (True, False):
        for recompute in ("none", "blocks"):
            resources = PretrainResources(micro_batch=16, activation_checkpointing=recompute)
            found = terms(paper("S/16"), resources, settings, 22_000_000, gpu)
            kept[gpu, recompute] = found["activations"], found["freed"]
    assert kept[True, "none"][0] == kept[False, "none"][0] > 4 * kept[True, "blocks"][0]
    assert kept[True, "blocks"][1] == kept[False, "none"][1] == 0
    saved = kept[False, "none"][0] - kept[False, "blocks"][0]
    assert kept[False, "blocks"][1] == saved / 2
    width, hidden, layers = 384, 1536, 12  # of a block 34 bytes a number and token; 2 gradients of the hidden layer
    assert kept[True, "none"][0] == 16 * 197 * (34 * width * layers + 2 * (2 * hidden + 2 * width))


def test_zero_0_in_bf16_is_told_of_zero_1() -> None:
    resources = PretrainResources(gpus_per_worker=1, workers=8, zero=0)
    found = estimate(paper("H/14"), resources, {"shards": (I21K,)}, Known(gpus=8))
    assert found.notes == (
        "zero 0 in bf16 keeps 12 bytes a parameter of fp32 weights and moments on each of 8 workers and sends 8 a step"
        "; zero 1, the same training, keeps 1.5, updates 1/8 of them and sends 6: set zero to 1",
    )


def test_padding_is_noted() -> None:
    found = estimate(recipe(), PretrainResources(micro_batch=8, workers=2), {"shards": (FEW,)}, Known())
    assert found.notes == ("3 micro-batches on 2 workers: 1 of 4 passes are padding; 1 or 3 workers have none",)


def test_what_may_be_a_slip_is_noted() -> None:
    sizes = {"layers": 1, "width": 32, "mlp": 64, "heads": 2, "patch_px": 8}
    odd = recipe(model={"variant": sizes, "image_px": 30})
    long = PretrainResources.model_validate({"checkpoint_every": "11 steps"})
    assert estimate(odd, long, {"shards": (FEW,)}, Known()).notes == (
        "checkpoint_every 11 steps is longer than the run: its last step alone is saved",
        "patches of 8 px leave 6 of 30 px out",
    )
    assert estimate(recipe(), PretrainResources(), {"shards": (FEW,)}, Known()).notes == ()


def test_what_pretrain_would_refuse_fails_at_plan() -> None:
    with pytest.raises(Exception, match="less than one step"):
        estimate(recipe(total="1 images"), PretrainResources(), {"shards": (I21K,)}, Known())


def test_an_average_takes_room() -> None:
    """4 bytes a parameter, split over the workers at every stage."""
    with_one, without = paper(ema={"decay": 0.999}), paper()
    parameters = num_parameters(ModelSettings(variant="L/16", image_px=224, classes=21_843))
    for zero in (0, 1):
        resources = PretrainResources.model_validate({"workers": 4, "zero": zero, "keep": 1})
        more, less = (estimate(one, resources, {"shards": (I21K,)}, Known(gpus=4)) for one in (with_one, without))
        assert more.bytes - less.bytes == 4 * parameters  # type: ignore[operator]
        assert more.memory_bytes - less.memory_bytes == pytest.approx(4 * parameters / 4, abs=2)  # type: ignore[operator]
        assert (more.averaged, less.averaged) == (True, False)


def test_the_host_keeps_what_is_offloaded_and_the_copy_to_save() -> None:
    """L/16 in bf16: 12 bytes a parameter of fp32 weights and moments, on the GPU or beside it; 12 to save from."""
    settings = ModelSettings(variant="L/16", image_px=224, classes=21_843)
    parameters = num_parameters(settings)
    memory = {
        (offload, gpu): terms(
            paper(), PretrainResources.model_validate({"offload": offload, "zero": 2}), settings, parameters, gpu
        )
        for offload in ("none", "cpu")
        for gpu in (False, True)
    }
    assert memory["none", True]["optimiser"] - memory["cpu", True]["optimiser"] == 12 * parameters
    assert memory["cpu", False]["optimiser"] == memory["none", False]["optimiser"]
    assert memory["none", False]["checkpoint"] == 12 * parameters


def test_milestones_stay_beside_the_newest() -> None:
    def kept(**resources: object) -> int:
        told = PretrainResources.model_validate({"checkpoint_every": "1k steps", "keep": 2, **resources})
        found = estimate(paper(total="10k steps"), told, {"shards": (I21K,)}, Known()).bytes
        return found or 0

    assert kept(milestone_every="5k steps") == 2 * kept()
