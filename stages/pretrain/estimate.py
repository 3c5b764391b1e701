"""What a pretraining will cost, from its recipe and the number of images alone. No torch."""

from collections.abc import Mapping, Sequence

from infra.errors import UsageError
from stages.artifacts import Artifact, ShardSet
from stages.contract import Estimate, Known
from stages.pretrain.config import PretrainConfig, PretrainResources, micro_batch_of, validation_split
from stages.pretrain.job import SPLIT, Course, check_init, model_of
from stages.vit.config import ModelSettings
from stages.vit.flops import activation_bytes, num_parameters, train_flops_per_image


def estimate(
    config: PretrainConfig,
    resources: PretrainResources,
    inputs: Mapping[str, Sequence[Artifact | Estimate]],
    known: Known,
) -> Estimate:
    """Steps, images, FLOPs, bytes kept, memory per worker and hours, as far as the shards are known.

    Raises what `pretrain` itself would raise for these numbers, so that it fails at plan.
    """
    splits, num_classes = _shards(inputs)
    if not splits or not splits.get(SPLIT) or num_classes is None:
        return Estimate(notes=("known once the shards are",))
    validation_split(config, splits, bool(inputs.get("probes")))
    course, model = Course(config, resources, splits[SPLIT]), model_of(config, num_classes)
    for init in inputs.get("init", ()):
        check_init(getattr(init, "model", None), model, getattr(init, "uri", "the weights of this run"))
    images = course.total_steps * config.batch_images
    flops = float(images * train_flops(config, model))
    saved = (num_parameters(model) + _predictor(config, model)) * _saved_bytes(config, resources)
    return Estimate(
        steps=course.total_steps,
        images=images,
        flops=flops,
        bytes=saved * min(resources.keep, -(-course.total_steps // course.checkpoint_steps)),
        memory_bytes=memory_bytes(config, resources, model),
        hours=flops / _speed(config, resources, known) / 3600,
        num_classes=num_classes,
        model=model.model_dump(mode="json"),
        averaged=config.ema is not None,
        notes=tuple(_notes(config, resources)),
    )


def memory_bytes(config: PretrainConfig, resources: PretrainResources, model: ModelSettings) -> int:
    """Peak memory of one worker: the state as ZeRO splits it (Rajbhandari et al. 2020, Figure 1), and activations.

    With P parameters on N workers: bf16 keeps 2P weights, fp32 sums of gradients, and 12P of optimiser; fp32 keeps 4P
    weights, 4P gradients and 8P of moments, ZeRO a second copy of the weights beside them. An average is 4P more.
    """
    parameters, share = num_parameters(model) + _predictor(config, model), 1 / resources.workers
    weight, gradient, optimiser = (2, 2, 12) if config.precision == "bf16" else (4, 4, 12)
    if resources.zero == 0 and config.precision == "fp32":
        optimiser = 8
    split = [share if resources.zero >= stage else 1.0 for stage in (3, 2, 1)]
    optimiser += _extra_bytes(config)
    state = parameters * (weight * split[0] + gradient * split[1] + optimiser * split[2])
    scale = 1 if config.precision == "bf16" else 2
    recompute = resources.activation_checkpointing == "blocks"
    activations = scale * activation_bytes(model, recompute) * micro_batch_of(config, resources)
    return int(state + activations)


def train_flops(config: PretrainConfig, model: ModelSettings) -> int:
    """Of one image's forward and backward pass; masked patches predict half of theirs."""
    if config.objective.kind != "masked_patch":
        return train_flops_per_image(model)
    return train_flops_per_image(model) + 3 * model.grid**2 * _predictor(config, model)


def _predictor(config: PretrainConfig, model: ModelSettings) -> int:
    """Weights of what masked patches are predicted with; its biases and the mask token are not worth counting."""
    if config.objective.kind != "masked_patch":
        return 0
    return model.sizes.width * config.objective.outputs_of_patch(model.sizes.patch_px)


def _shards(inputs: Mapping[str, Sequence[Artifact | Estimate]]) -> tuple[dict[str, int] | None, int | None]:
    found = inputs.get("shards", ())
    if not found:
        return None, None
    shards = found[0]
    if not isinstance(shards, ShardSet | Estimate):
        raise UsageError("estimate a pretraining", f"its shards are a {shards.kind}", "name a node that ingests")
    return shards.splits, shards.num_classes


def _saved_bytes(config: PretrainConfig, resources: PretrainResources) -> int:
    """Bytes of a checkpoint per parameter: weights, master weights where they are another copy, moments, average."""
    if config.precision == "bf16":
        return 14 + _extra_bytes(config)
    return (12 if resources.zero == 0 else 16) + _extra_bytes(config)


def _extra_bytes(config: PretrainConfig) -> int:
    """An average of 4 bytes a parameter; and a moment of 2 instead of 4."""
    return (4 if config.ema else 0) - (2 if config.optimizer.state_dtype == "bf16" else 0)


def _speed(config: PretrainConfig, resources: PretrainResources, known: Known) -> float:
    """FLOP/s of all workers together."""
    gpus = resources.gpus_per_worker if resources.gpus_per_worker is not None else min(1, known.gpus)
    each = known.gpu_flops * gpus if gpus else known.cpu_flops * resources.cpus_per_worker
    return each * resources.workers


def _notes(config: PretrainConfig, resources: PretrainResources) -> list[str]:
    micro = config.batch_images // micro_batch_of(config, resources)
    idle = -micro % resources.workers
    if not idle:
        return []
    slots = micro + idle
    return [f"{micro} micro-batches on {resources.workers} workers: {idle} of {slots} passes are padding"]
