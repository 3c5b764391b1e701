"""What an evaluation will cost: forward passes over the scored split and the drawn images. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.costs.launches import busy_part, launches_of_looks
from vitpipe.stages.costs.tasks import Tasks
from vitpipe.stages.estimates import Estimate, Given, Known, tasks_costs
from vitpipe.stages.evaluate.config import PART_IMAGES, EvaluateConfig, EvaluateResources
from vitpipe.stages.images.class_match import join
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.image_costs import image_work
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import in_brief
from vitpipe.stages.tasks import check_data, check_labelled, planned_splits
from vitpipe.stages.vit.flops import activation_bytes, forward_macs, num_blocks, num_parameters


@dataclass(frozen=True)
class _Looks:
    """What is looked at to get features, or an own head's answers."""

    parts: tuple[int, ...]
    """Images of each extraction, one after the other."""
    image_px: int
    model: ModelSettings | None
    """None where the pixels themselves are the features."""

    @property
    def images(self) -> int:
        return sum(self.parts)

    @property
    def flops(self) -> float:
        return self.images * 2 * forward_macs(self.model) if self.model else 0.0

    @property
    def features_bytes(self) -> int:
        """Of one model's features, in fp32."""
        return 4 * sum(self.parts[:2]) * (self.model.feature_width if self.model else 3 * self.image_px**2)

    def launches(self, batch_images: int, precision: str) -> float:
        """Operations that a GPU is asked for."""
        return launches_of_looks(self.images, batch_images, num_blocks(self.model), precision) if self.model else 0.0


def estimate(config: EvaluateConfig, resources: EvaluateResources, inputs: Given, known: Known) -> Estimate:
    """Unknown until data and model are; raw pixels need a size. UsageError when the method needs a missing head."""
    data = inputs["data"][0]
    assert isinstance(data, ShardSet | Estimate)
    splits, classes = planned_splits(data), data.num_classes
    check_set(config, data, splits)
    given = inputs.get("weights") or ()
    model: ModelSettings | None = getattr(given[0], "model", None) if given else None
    if model is not None:
        check_head(config, model)
        model = sized(config, model)
    # refuses what cannot be matched
    unmatched = not config.probes and bool(given) and join(data, given[0], config.called) is None
    if splits is None or classes is None:
        return Estimate(notes=("sizes follow from the data, once it is ingested",), unmatched=unmatched)
    parts = _extracted(config, splits, classes)
    raw = config.features == "raw_pixels"
    image_px = config.image_px if raw and config.image_px else model.image_px if model else None
    if image_px is None:
        return Estimate(images=sum(parts), bytes=4096, unmatched=unmatched)
    resources = with_gpus(config, resources, model, splits, classes, known.gpus)
    looks = _Looks(parts, image_px, None if raw else model)
    tasks = _tasks(looks, config, resources, data, known)
    notes = [known.idle_gpus(resources)]
    if looks.model:
        notes += [known.no_speed(config.precision), _room(config, resources, looks.model, known)]
    return Estimate(
        images=looks.images,
        flops=looks.flops,
        bytes=4096,
        memory_bytes=int(task_bytes(config, resources, model)) + looks.features_bytes,
        hours=tasks.seconds / 3600 if tasks else None,
        costs=tasks_costs(tasks, known.cluster) if tasks else None,
        unmatched=unmatched,
        notes=tuple(filter(None, notes)),
    )


def _tasks(
    looks: _Looks, config: EvaluateConfig, resources: EvaluateResources, data: ShardSet | Estimate, known: Known
) -> Tasks | None:
    """All extractions, one after the other, each in its tasks; None where nobody knows a GPU's speed."""
    gpus, asked = known.task_gpus(resources), resources.cpus_per_task
    cores = asked * (1.0 if gpus else known.part_of_cores(asked))
    model, images = looks.model, looks.images
    speed: float | None = 1.0  # of no model
    if model is not None:
        of_a_gpu = known.gpu_speed(str(model.variant), config.precision)
        speed = of_a_gpu if gpus else known.core_speed(model.feature_width) * cores
    if speed is None:
        return None
    return Tasks(
        flops=looks.flops,
        images=images,
        image=image_work(AugmentSettings(crop="none", flip=False), data, looks.image_px),
        shares=tuple((-(-part // PART_IMAGES), part / images) for part in looks.parts if part) or ((1, 1.0),),
        room=known.room(asked, gpus),
        gpus_each=gpus,
        cores_each=cores,
        cores_asked=asked,
        speed=speed * min(1.0, gpus) if gpus else speed,
        start_s=known.cluster.task_start_s,
        launches_s=known.launch_s(looks.launches(resources.batch_images, config.precision)),
    )


def _extracted(config: EvaluateConfig, splits: Mapping[str, int], classes: int) -> tuple[int, ...]:
    """Count the images of each extraction, in order: those drawn to fit probes, those scored; anew for each model."""
    drawn = splits["train"] if config.probes else 0
    if config.probes and config.drawn:
        drawn = min(drawn, max(config.drawn) * classes * len(config.seeds))
    models = len(config.seeds) if config.features == "untrained" else 1
    return ((drawn, splits[config.split]) if config.probes else (splits[config.split],)) * models


def _room(config: EvaluateConfig, resources: EvaluateResources, model: ModelSettings, known: Known) -> str:
    counts = (resources.batch_images >> half for half in range(resources.batch_images.bit_length()))
    sizes = (
        (count, task_bytes(config, resources.model_copy(update={"batch_images": count}), model)) for count in counts
    )
    return known.too_large(resources, "batch_images", sizes)


def with_gpus(
    config: EvaluateConfig,
    resources: EvaluateResources,
    model: ModelSettings | None,
    splits: Mapping[str, int],
    classes: int,
    gpus: int,
) -> EvaluateResources:
    """Say what one task gets, the part of a GPU too where nobody said it: in a plan as in a run.

    UsageError for a size of image that the model cannot have.
    """
    memory, busy = task_bytes(config, resources, model), 0.0
    if model is not None and config.features != "raw_pixels":
        settings, batch = sized(config, model), resources.batch_images
        looks = launches_of_looks(batch, batch, num_blocks(settings), config.precision)
        busy = busy_part(batch * 2 * forward_macs(settings), looks)
    tasks = max(-(-part // PART_IMAGES) for part in _extracted(config, splits, classes))
    return resources.on_gpus(gpus, memory, tasks, busy)


def check_set(config: EvaluateConfig, data: ShardSet | Estimate, splits: Mapping[str, int] | None) -> None:
    """UsageError for data that the method cannot score: a plan asks before it starts, the stage of what is there.

    `splits` is None where a plan does not know them yet.
    """
    needed, classes = (("train", config.split), data.num_classes) if config.probes else ((config.split,), None)
    several = isinstance(data, ShardSet) and data.multi_label and config.method != "real"
    asked = f"evaluate on {data.uri if isinstance(data, ShardSet) else 'a data set of this run'}"
    check_labelled(asked, data.num_classes)
    if splits is not None:
        check_data(asked, splits, needed, multi_label=several, classes=classes, scored=config.split)


def task_bytes(config: EvaluateConfig, resources: EvaluateResources, model: ModelSettings | None) -> float:
    """Memory of one task on a GPU: the model and a batch's activations, which inference keeps one block at a time."""
    if model is None or config.features == "raw_pixels":
        return 0.0
    settings = sized(config, model)
    kept = activation_bytes(settings, recompute=True) * (2 if config.precision == "fp32" else 1)  # counted in bf16
    return 4.0 * num_parameters(settings) + resources.batch_images * kept


def sized(config: EvaluateConfig, model: ModelSettings) -> ModelSettings:
    """The weights' architecture at the size of image that is asked for. UsageError for one that it cannot have."""
    if config.image_px is None or config.features == "raw_pixels":
        return model
    try:
        return ModelSettings.model_validate({**model.model_dump(), "image_px": config.image_px})
    except ValidationError as error:
        asked = f"evaluate weights at {config.image_px} px"
        raise UsageError(asked, in_brief(error), "choose an image_px that this model can have") from error


def check_head(config: EvaluateConfig, model: ModelSettings | None) -> None:
    """UsageError for an encoder without classes where its own head is to name them."""
    if not config.probes and model is not None and model.classes == 0:
        found = "they have no head: they were pretrained on patches, without classes"
        do = "fine-tune them first, or probe their features with method fewshot, linear or knn"
        raise UsageError(f"evaluate weights by {config.method}", found, do)
