"""What a fine-tuning will cost: the trials, their steps and FLOPs. No torch."""

from collections.abc import Mapping, Sequence

from infra.errors import UsageError
from stages.artifacts import Artifact, ShardSet
from stages.contract import Estimate, Known
from stages.finetune.config import FinetuneConfig, FinetuneResources
from stages.finetune.protocol import final_trials, sweep_trials
from stages.vit.config import ModelSettings
from stages.vit.flops import activation_bytes, forward_macs, num_parameters, train_flops_per_image

Given = Mapping[str, Sequence[Artifact | Estimate]]


def estimate(config: FinetuneConfig, resources: FinetuneResources, inputs: Given, known: Known) -> Estimate:
    """All trials of the sweep and the test phase together; unknown until the data's size and the model are known.

    UsageError for a warm-up, an image size or a dev split that cannot work with them.
    """
    splits, classes = _splits(inputs["data"][0])
    model = _model(config, inputs, classes)
    if splits is None or model is None:
        return Estimate(num_classes=classes, notes=("sizes follow from the data, once it is ingested",))
    if "test" not in splits or "train" not in splits:
        found = f"it has {', '.join(f'{name} ({count})' for name, count in splits.items())}"
        raise UsageError("fine-tune on a data set", found, "ingest it with the splits train and test")
    num_train = min(splits["train"], (config.train_per_class or splits["train"]) * (classes or 1))
    num_dev = round(config.dev * num_train) if config.dev < 1 else int(config.dev)
    sweep, final = len(sweep_trials(config)), len(final_trials(config, config.rates[0]))
    sweep_steps = config.total.steps(config.batch_images, max(1, num_train - num_dev))
    final_steps = config.total.steps(config.batch_images, num_train)
    config.cosine(final_steps, num_train)
    steps = sweep * sweep_steps + final * final_steps
    scored = sweep * num_dev + final * splits["test"]
    flops = steps * config.batch_images * train_flops_per_image(model) + scored * 2 * forward_macs(model)
    return Estimate(
        steps=steps,
        images=steps * config.batch_images + scored,
        flops=flops,
        bytes=4 * num_parameters(model),
        memory_bytes=_memory_bytes(model),
        hours=_hours(flops, sweep, final, resources, known),
        num_classes=classes,
        model=model.model_dump(mode="json"),
        notes=(f"{sweep} trials choose the rate, {final} are tested",),
    )


def _splits(data: Artifact | Estimate) -> tuple[dict[str, int] | None, int | None]:
    assert isinstance(data, ShardSet | Estimate)
    return data.splits, data.num_classes


def _model(config: FinetuneConfig, inputs: Given, classes: int | None) -> ModelSettings | None:
    given = inputs.get("weights") or ()
    facts = getattr(given[0], "model", None) if given else None
    if given and facts is None:
        return None
    pretrained = ModelSettings.model_validate(facts) if facts else None
    return config.architecture(pretrained, classes or 1)


def _memory_bytes(model: ModelSettings) -> int:
    """Parameters, gradients and momentum in fp32; activations of 64 images."""
    return 12 * num_parameters(model) + 64 * activation_bytes(model)


def _hours(flops: float, sweep: int, final: int, resources: FinetuneResources, known: Known) -> float:
    """As if all trials of a phase ran at once on the GPUs there are, or one after another on one task's cores."""
    if known.gpus:
        share = resources.gpus_per_task or 1.0
        return flops / (known.gpu_flops * min(known.gpus, max(sweep, final) * share)) / 3600
    return flops / (known.cpu_flops * resources.cpus_per_task) / 3600
