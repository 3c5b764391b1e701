"""What recomputing blocks costs, beside what torch's own counter sees of a real pass forth and back."""

import pytest
from tiny_vit import random_images, tiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.objective_costs import recomputed_flops, train_flops
from vitpipe.stages.vit.build import build_model, checkpoint_blocks
from vitpipe.stages.vit.flops import recomputed_flops_per_image


def counted(settings: ModelSettings, recompute: bool) -> int:
    """Without any numbers: the device `meta` knows shapes alone."""
    model = build_model(settings).train().to("meta")
    if recompute:
        checkpoint_blocks(model)
    with FlopCounterMode(display=False) as counter:
        model(random_images(settings, 1).to("meta")).sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"dropout": 0.1}, {"layer_scale": 1e-5}, {"stochastic_depth": 0.1}, {"mlp_kind": "swiglu"},
        {"variant": "R50x1", "image_px": 32}, {"variant": "R50x1", "image_px": 32, "stochastic_depth": 0.1},
        {"variant": "R26+S/32", "image_px": 32, "dropout": 0.1},
    ],
)  # fmt: skip
def test_recomputed_flops_are_those_that_torch_counts(changes: dict[str, object]) -> None:
    settings = tiny(**changes)
    assert counted(settings, True) - counted(settings, False) == recomputed_flops_per_image(settings) > 0


@pytest.mark.parametrize(
    "changes", [{}, {"dropout": 0.1}, {"stochastic_depth": 0.1}, {"mlp_kind": "swiglu"}, {"variant": "R26+S/32"}]
)
def test_under_zero_3_the_last_product_of_a_block_is_made_again(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    settings = tiny(**changes)
    monkeypatch.setattr(nn.functional, "linear", zero3_linear_wrap)
    found = counted(settings, True) - counted(settings, False)
    assert found == recomputed_flops_per_image(settings, partitioned=True) > 0
    if not settings.dropout:
        assert found > recomputed_flops_per_image(settings)


def test_a_large_model_pays_a_third_of_its_step_and_less_where_no_mask_follows() -> None:
    """Of H/14 with a head of ImageNet-21k's classes; the MLP's last product is D x 4D on each of 257 tokens."""
    model = ModelSettings(variant="H/14", image_px=224, classes=21_843, dropout=0.1)
    whole = train_flops(ObjectiveSettings(), model)
    assert 3 * recomputed_flops(ObjectiveSettings(), model, 1) / whole == pytest.approx(0.9987, abs=1e-4)
    bare = model.model_copy(update={"dropout": 0.0})
    spared = recomputed_flops(ObjectiveSettings(), bare, 1)
    last_product = 2 * 32 * 257 * 1280 * 5120
    assert recomputed_flops(ObjectiveSettings(), model, 1) - spared == last_product
    assert recomputed_flops(ObjectiveSettings(), bare, 3) == recomputed_flops(ObjectiveSettings(), model, 1)
    masked = ObjectiveSettings(kind="mae")
    assert 0.2 < recomputed_flops(masked, model, 1) / train_flops(masked, model) < 0.34
