"""The plan's numbers: the paper's recipe, and DeepSpeed's published memory table."""

import pytest
from tiny_pretraining import recipe

from stages.contract import Estimate, Known
from stages.pretrain.config import PretrainConfig, PretrainResources
from stages.pretrain.estimate import estimate, memory_bytes
from stages.vit.config import ModelSettings
from stages.vit.flops import num_parameters

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
    assert found.hours * 8 == pytest.approx(found.flops / 400e12 / 3600)


def test_without_shards_nothing_is_claimed() -> None:
    assert estimate(paper(), PretrainResources(), {"shards": (Estimate(),)}, Known()).steps is None


@pytest.mark.parametrize(("zero", "per_parameter"), [(0, 16.0), (1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)])
def test_zero_splits_the_state_as_published(zero: int, per_parameter: float) -> None:
    """Rajbhandari et al. 2020, Figure 1: 120 / 31.4 / 16.6 / 1.9 GB for 7.5B parameters on 64 workers."""
    settings = ModelSettings(variant="L/16", image_px=224, classes=1000)
    resources = PretrainResources.model_validate({"zero": zero, "workers": 64, "micro_batch": 1})
    more = PretrainResources.model_validate({"zero": zero, "workers": 64, "micro_batch": 2})
    one, two = (memory_bytes(paper(), each, settings) for each in (resources, more))
    activations = two - one
    assert one - activations == pytest.approx(num_parameters(settings) * per_parameter, rel=1e-6)


def test_padding_is_noted() -> None:
    found = estimate(recipe(), PretrainResources(micro_batch=8, workers=2), {"shards": (I21K,)}, Known())
    assert found.notes == ("3 micro-batches on 2 workers: 1 of 4 passes are padding",)


def test_what_may_be_a_slip_is_noted() -> None:
    sizes = {"layers": 1, "width": 32, "mlp": 64, "heads": 2, "patch_px": 8}
    odd = recipe(model={"variant": sizes, "image_px": 30})
    long = PretrainResources.model_validate({"checkpoint_every": "11 steps"})
    assert estimate(odd, long, {"shards": (I21K,)}, Known()).notes == (
        "checkpoint_every 11 steps is longer than the run: its last step alone is saved",
        "patches of 8 px leave 6 of 30 px out",
    )
    assert estimate(recipe(), PretrainResources(), {"shards": (I21K,)}, Known()).notes == ()


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
    parameters = num_parameters(ModelSettings(variant="L/16", image_px=224, classes=21_843))
    memory = {
        (offload, gpus): estimate(
            paper(), PretrainResources.model_validate({"offload": offload}), {"shards": (I21K,)}, Known(gpus=gpus)
        ).memory_bytes
        for offload in ("none", "cpu")
        for gpus in (0, 1)
    }
    assert memory["none", 1] - memory["cpu", 1] == pytest.approx(12 * parameters, abs=2)  # type: ignore[operator]
    assert memory["none", 0] - memory["none", 1] == pytest.approx(12 * parameters, abs=2)  # type: ignore[operator]
    assert memory["none", 0] == memory["cpu", 0]


def test_milestones_stay_beside_the_newest() -> None:
    def kept(**resources: object) -> int:
        told = PretrainResources.model_validate({"checkpoint_every": "1k steps", "keep": 2, **resources})
        found = estimate(paper(total="10k steps"), told, {"shards": (I21K,)}, Known()).bytes
        return found or 0

    assert kept(milestone_every="5k steps") == 2 * kept()
