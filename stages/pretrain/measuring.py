"""What it takes to measure a pretraining while it trains, for a plan: forward passes over images of other splits."""

from collections.abc import Iterator
from dataclasses import dataclass

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.costs.launches import launches_of_looks
from vitpipe.stages.costs.training import RankSpeed
from vitpipe.stages.estimates import Estimate, Given
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.image_costs import image_work
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import held_out
from vitpipe.stages.pretrain.job import ResolvedRecipe
from vitpipe.stages.vit.flops import forward_macs, num_blocks

MUCH = 0.2
"""Share of a training's time from which on measuring it is told of."""


@dataclass(frozen=True)
class Measurements:
    """How often a training is measured, and on how many images each time."""

    times: int = 0
    images: int = 0

    @classmethod
    def of(cls, recipe: ResolvedRecipe, inputs: Given, steps: int) -> "Measurements":
        """Count those of the last `steps` of a training; none where `evaluate` is left out."""
        settings = recipe.config.evaluate
        if settings is None:
            return cls()
        every = max(1, settings.every.steps(recipe.config.batch_images, recipe.epoch_images))
        first, last = recipe.total_steps - steps, recipe.total_steps
        times = last // every - first // every + (last % every > 0)
        return cls(times, sum(_looked_at(recipe, inputs)))

    def seconds(
        self, ranks: RankSpeed, model: ModelSettings, micro_batch: int, precision: str, shards: object
    ) -> float:
        """Seconds of all of them, on all ranks; images of other sets are taken to be as those of the training."""
        each = self.images / ranks.count
        passes = each * 2 * forward_macs(model) / ranks.flops
        launches = launches_of_looks(int(each), micro_batch, num_blocks(model), precision) * ranks.launch_s
        image = image_work(AugmentSettings(crop="none", flip=False), shards, model.image_px)
        read = each * image.milliseconds(ranks.core_speed) / 1000 / ranks.cores
        device = max(passes, launches)
        return self.times * (max(device, read) if ranks.on_gpus else device + read)

    def doubts(self, took: float, whole: float) -> Iterator[str]:
        """Say that they take much of the whole time."""
        if took > MUCH * whole:
            yield f"config.evaluate: {self.times:,} times {self.images:,} images take {took / whole:.0%} of its time"


def _looked_at(recipe: ResolvedRecipe, inputs: Given) -> Iterator[int]:
    """Images of each set that one measurement looks at: held out, watched, and those drawn and scored of a probe."""
    settings = recipe.config.evaluate
    sets = {name: [one for one in inputs.get(name, ()) if isinstance(one, ShardSet | Estimate)] for name in _SETS}
    splits = [one.splits or {} for one in sets["shards"]]
    if (held := held_out(*splits)) is not None:
        yield sum(one.get(held, 0) for one in splits)
    for one in (*sets["watch"], *sets["probes"]):
        found = one.splits or {}
        yield found.get(held_out(found) or "", 0)
    for probe in sets["probes"]:
        assert settings is not None
        drawn = max(settings.fewshot.shots) * (probe.num_classes or 0) * len(settings.fewshot.seeds)
        yield min(drawn, (probe.splits or {}).get("train", 0))


_SETS = ("shards", "watch", "probes")
