"""What a fine-tuning will cost: the trials, their steps and FLOPs. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import Artifact, ShardSet
from vitpipe.stages.costs.launches import FLAT, busy_part
from vitpipe.stages.costs.tasks import Tasks
from vitpipe.stages.estimates import Estimate, Given, Known, tasks_costs
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.protocol import final_trials, sweep_trials
from vitpipe.stages.images.image_costs import image_work
from vitpipe.stages.images.manifest import known_names
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.settings import Duration, micro_batch_of, passes_of
from vitpipe.stages.tasks import check_data, check_labelled, planned_splits
from vitpipe.stages.training.doubts import Training, doubts
from vitpipe.stages.training.optim.kinds import rule_of
from vitpipe.stages.vit.flops import activation_bytes, forward_macs, num_blocks, num_parameters, train_flops_per_image


def estimate(config: FinetuneConfig, resources: FinetuneResources, inputs: Given, known: Known) -> Estimate:
    """All trials of the sweep and the test phase together; unknown until the data's size and the model are known.

    UsageError for a warm-up, an image size or a dev split that cannot work with them.
    """
    data = inputs["data"][0]
    assert isinstance(data, ShardSet | Estimate)
    splits, classes = planned_splits(data), data.num_classes
    check_set(config, data, splits)
    assumed = check_kept_head(data, inputs["weights"][0]) if config.head_init == "keep" else ""
    model = _model(config, inputs, classes)
    if splits is None or model is None:
        waits = "sizes follow from the data, once it is ingested"
        return Estimate(num_classes=classes, class_names=_names(data), notes=(waits,))
    resources = with_gpus(config, resources, model, known.gpus)
    work = trial_work(config, model, splits, classes or 1)
    sweep, final = len(sweep_trials(config)), len(final_trials(config, config.rates[0]))
    if sweep:
        config.cosine(work.sweep_steps, work.num_train - work.num_dev)
    warmup = config.cosine(work.final_steps, work.num_train).warmup
    steps = sweep * work.sweep_steps + final * work.final_steps
    scored = sweep * work.num_dev + final * splits[config.split]
    flops = sweep * work.sweep_flops + final * work.final_flops
    shares = ((sweep, sweep * work.sweep_flops / flops), (final, final * work.final_flops / flops))
    tasks = _tasks(config, resources, model, data, known, shares, flops, steps * config.batch_images + scored)
    return Estimate(
        steps=steps,
        images=steps * config.batch_images + scored,
        flops=flops,
        bytes=4 * num_parameters(model),
        memory_bytes=memory_bytes(config, resources, model),
        hours=tasks.seconds / 3600 if tasks else None,
        costs=tasks_costs(tasks, known.cluster) if tasks else None,
        num_classes=classes,
        class_names=_names(data),
        model=model,
        notes=(
            f"{sweep} trials choose the rate, {final} are tested",
            *filter(None, (assumed, known.no_speed(config.precision), known.idle_gpus(resources))),
            *filter(None, (_room(config, resources, model, known),)),
            *_doubts(config, resources, work, warmup),
        ),
    )


def check_set(config: FinetuneConfig, data: ShardSet | Estimate, splits: Mapping[str, int] | None) -> None:
    """UsageError for data that cannot be trained and scored on: a plan asks, and the stage of what is there.

    `splits` is None where a plan does not know them yet.
    """
    asked = f"fine-tune on {data.uri if isinstance(data, ShardSet) else 'a data set of this run'}"
    several, needed = isinstance(data, ShardSet) and data.multi_label, ("train", config.split)
    check_labelled(asked, data.num_classes)
    if splits is not None:
        check_data(asked, splits, needed, multi_label=several, classes=data.num_classes, scored=config.split)


def check_kept_head(data: ShardSet | Estimate, weights: Artifact | Estimate) -> str:
    """Say what is assumed of a head that is to be kept; empty where it names the data's classes in their order.

    UsageError for one of other classes, or in another order. What is not known yet the stage asks again.
    """
    wanted, known, model = known_names(data), known_names(weights), getattr(weights, "model", None)
    uri, do = getattr(weights, "uri", "weights of this run"), "leave head_init out for a new head"
    if model is not None and data.num_classes and model.classes != data.num_classes:
        found = f"it has {model.classes} classes, the data have {data.num_classes}"
        raise UsageError(f"keep the head of {uri}", found, do)
    if wanted is None or known is None or wanted == known:
        return ""
    if all(name == str(number) for number, name in known.items()):
        return f"the head of {uri} is kept and names no class: that it counts them as the data do is assumed"
    number = next(number for number, name in wanted.items() if known.get(number) != name)
    found = f"class {number} is {known.get(number)!r} there and {wanted[number]!r} in the data"
    raise UsageError(f"keep the head of {uri}", found, do)


@dataclass(frozen=True)
class TrialWork:
    """What one trial of each phase takes."""

    num_train: int
    num_dev: int
    sweep_steps: int
    final_steps: int
    sweep_flops: float
    final_flops: float

    def seconds(self, phase: str, known: Known) -> float:
        """How long one trial of a phase will take."""
        flops = self.sweep_flops if phase == "sweep" else self.final_flops
        return flops / (known.gpu_flops if known.gpus else known.cpu_flops)


def trial_work(config: FinetuneConfig, model: ModelSettings, splits: Mapping[str, int], classes: int) -> TrialWork:
    """Steps and FLOPs of a sweep trial and of a test trial."""
    num_train = min(splits["train"], (config.train_per_class or splits["train"]) * classes)
    num_dev = round(config.dev * num_train) if config.dev < 1 else int(config.dev)
    sweep_steps = config.total.steps(config.batch_images, max(1, num_train - num_dev))
    final_steps = config.total.steps(config.batch_images, num_train)
    step, look = config.batch_images * train_flops_per_image(model), 2 * forward_macs(model)
    return TrialWork(
        num_train=num_train,
        num_dev=num_dev,
        sweep_steps=sweep_steps,
        final_steps=final_steps,
        sweep_flops=float(sweep_steps * step + num_dev * look),
        final_flops=float(final_steps * step + splits[config.split] * look),
    )


def with_gpus(
    config: FinetuneConfig, resources: FinetuneResources, model: ModelSettings, gpus: int
) -> FinetuneResources:
    """Say what one trial gets, the part of a GPU too where nobody said it: in a plan as in a run."""
    memory, batch = memory_bytes(config, resources, model), config.batch_images
    step = FLAT.of_step(num_blocks(model), -(-batch // micro_batch_of(batch, resources.micro_batch)))
    busy = busy_part(batch * train_flops_per_image(model), step)
    trials = max(len(sweep_trials(config)), len(final_trials(config, config.rates[0])))
    return resources.on_gpus(gpus, memory, trials, busy)


def _room(config: FinetuneConfig, resources: FinetuneResources, model: ModelSettings, known: Known) -> str:
    asked = micro_batch_of(config.batch_images, resources.micro_batch)
    sizes = (
        (count, float(memory_bytes(config, resources.model_copy(update={"micro_batch": count}), model)))
        for count in passes_of(config.batch_images, asked)
    )
    return known.too_large(resources, "micro_batch", sizes)


def _model(config: FinetuneConfig, inputs: Given, classes: int | None) -> ModelSettings | None:
    given = inputs.get("weights") or ()
    pretrained: ModelSettings | None = getattr(given[0], "model", None) if given else None
    if given and pretrained is None:
        return None
    return config.architecture(pretrained, classes or 1)


def _names(data: ShardSet | Estimate) -> tuple[str, ...] | None:
    """What the head will call its classes, where the data say it already."""
    names = known_names(data)
    return None if names is None else tuple(names.values())


def memory_bytes(config: FinetuneConfig, resources: FinetuneResources, model: ModelSettings) -> int:
    """Parameters, gradients, moments and the average in fp32; activations of a micro-batch."""
    each = 8 + config.optimizer.rule(config.rates[0]).moment_bytes + (4 if config.ema else 0)
    kept = activation_bytes(model) * (2 if config.precision == "fp32" else 1)  # counted in bf16
    return each * num_parameters(model) + micro_batch_of(config.batch_images, resources.micro_batch) * kept


def _doubts(
    config: FinetuneConfig, resources: FinetuneResources, work: TrialWork, warmup: Duration | None
) -> list[str]:
    assert warmup is not None  # a schedule in steps states it
    training = Training(
        batch_images=config.batch_images,
        num_images=work.num_train,
        total=config.total,
        total_steps=work.final_steps,
        warmup=config.warmup,
        warmup_steps=int(warmup.amount),
        rates=config.rates,
        optimizer=config.optimizer.kind,
        usual_rates=rule_of(config.optimizer.kind).usual_rates,
        decay=config.ema.decay if config.ema else None,
        multiple=resources.micro_batch or 1,
    )
    return doubts(training)


def _tasks(
    config: FinetuneConfig,
    resources: FinetuneResources,
    model: ModelSettings,
    data: ShardSet | Estimate,
    known: Known,
    shares: tuple[tuple[int, float], ...],
    flops: float,
    images: int,
) -> Tasks | None:
    """All trials: those of a phase at once where there is room for them; None where nobody knows a GPU's speed."""
    gpus, asked = known.task_gpus(resources), resources.cpus_per_task
    speed = known.gpu_speed(str(model.variant), config.precision)
    if gpus and speed is None:
        return None
    micro = micro_batch_of(config.batch_images, resources.micro_batch)
    launches = FLAT.of_passes(images, micro, config.batch_images, num_blocks(model)) if gpus else 0.0
    cores = asked * known.part_of_cores(asked)
    if gpus:
        cores = known.image_cores(asked, resources.threads, gpus, max(count for count, _ in shares))
    return Tasks(
        flops=flops,
        images=images,
        image=image_work(config.image_changes, data, model.image_px),
        shares=shares,
        room=known.room(asked, gpus),
        gpus_each=gpus,
        cores_each=cores,
        cores_asked=asked,
        start_s=known.cluster.task_start_s,
        launches_s=known.launch_s(launches),
        speed=speed * min(1.0, gpus)
        if gpus and speed
        else known.core_speed(model.feature_width, config.precision == "bf16") * cores,
    )
