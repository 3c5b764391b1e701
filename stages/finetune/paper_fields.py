"""A fine-tuning beside the paper's Table 4 and section B.1.1. No torch."""

from typing import Any

from vitpipe.stages.finetune.config import FinetuneConfig
from vitpipe.stages.images.config import before_crop_px
from vitpipe.stages.paper import upstream
from vitpipe.stages.paper.recipe_comparison import RecipeComparison, compare
from vitpipe.stages.paper.recipes import finetuning_row

FIXED = {"schedule": "cosine"}
"""What `tuning.py` does whatever the config says."""


def conform(
    config: FinetuneConfig, benchmark: str | None, variant: str | None, image_px: int | None, recipe: str | None = None
) -> RecipeComparison:
    """Compare with what the paper did on a benchmark of Table 4, or on all of them where it is none of those.

    `variant` names the pretrained model and `image_px` is its own input size, where they are known. `recipe` names one
    of the authors' later ones, which has its own way with ImageNet.
    """
    own = upstream.finetuning_row(recipe, variant) if recipe is not None and benchmark == "imagenet" else None
    row = own or finetuning_row(benchmark, variant, averaged=config.ema is not None)
    return compare(_values(config, image_px), row, config.batch_images)


def _values(config: FinetuneConfig, image_px: int | None) -> dict[str, Any]:
    side = config.image_px or image_px
    crop_px = config.crop_px
    return {
        **config.model_dump(mode="json"),
        **FIXED,
        "optimizer": str(config.optimizer),
        "augment": config.augment.model_dump(mode="json", exclude_defaults=True) or None,
        "total": config.total,
        "warmup": config.warmup,
        "peak_lr": sorted(config.rates),
        "image_px": side,
        "crop_px": "image_px x 8/7" if crop_px is None or (side and crop_px == before_crop_px(side)) else crop_px,
        "ema": config.ema.decay if config.ema else None,
        "seeds": f"{len(config.seeds)} runs",
    }
