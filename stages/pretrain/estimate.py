"""What a pretraining will cost, from its recipe and the number of images alone. No torch."""

from collections.abc import Iterator, Mapping, Sequence

from vitpipe.infra.errors import UsageError
from vitpipe.infra.work import RANKS_PER_CORE
from vitpipe.stages.artifacts import Artifact, Checkpoint, ShardSet
from vitpipe.stages.estimates import Estimate, Given, Known
from vitpipe.stages.images.manifest import known_names
from vitpipe.stages.images.united import refuse_other_classes
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources, validation_split
from vitpipe.stages.pretrain.continuation import changed_fields, refuse, refuse_change, refuse_end
from vitpipe.stages.pretrain.costing import CostedPretraining
from vitpipe.stages.pretrain.input_checks import (
    check_classes,
    check_init,
    check_init_names,
    check_probe,
    check_shards,
    watched_outputs,
)
from vitpipe.stages.pretrain.job import SPLIT, ResolvedRecipe, model_of
from vitpipe.stages.pretrain.locality import MACHINE, batch_note
from vitpipe.stages.pretrain.measuring import Measurements
from vitpipe.stages.pretrain.memory import saved_bytes, terms
from vitpipe.stages.pretrain.memory_advice import MemoryAdvice
from vitpipe.stages.training.doubts import Training, doubts
from vitpipe.stages.training.objective_costs import num_trained, train_flops
from vitpipe.stages.training.optim.rule import BYTES


def estimate(config: PretrainConfig, resources: PretrainResources, inputs: Given, known: Known) -> Estimate:
    """Steps, images, FLOPs, bytes kept, memory per worker and hours, as far as the shards are known.

    Raises what `pretrain` itself would raise for these numbers, so that it fails at plan.
    """
    num_images, num_classes = _shards(config, inputs)
    for probe in inputs.get("probes", ()):
        if isinstance(probe, ShardSet | Estimate) and probe.splits is not None:
            check_probe(*_facts(probe, "a probe of this run"), probe.num_classes)
    for watched in inputs.get("watch", ()):
        if isinstance(watched, ShardSet | Estimate) and isinstance(inputs["shards"][0], ShardSet | Estimate):
            watched_outputs(watched, inputs["shards"][0])
    _check_classes(config, inputs, num_classes)
    if not num_images or None in num_classes:
        said = known_names(inputs["shards"][0]) if config.objective.labelled else None
        return Estimate(class_names=tuple(said.values()) if said else None, notes=("known once the shards are",))
    splits = [one.splits or {} for one in inputs["shards"] if isinstance(one, ShardSet | Estimate)]
    validation_split(config, splits, bool(inputs.get("probes") or inputs.get("watch")))
    recipe = ResolvedRecipe(config, resources, num_images)
    model = model_of(config, num_classes[0] or 0)
    names = known_names(inputs["shards"][0]) if model.classes else {}
    _check_init(inputs, model, names)
    steps = recipe.total_steps - _steps_before(recipe, inputs)
    images = steps * config.batch_images
    flops = float(images * train_flops(config.objective, model))
    saved = num_trained(config.objective, model) * saved_bytes(config)
    gpus = resources.gpus_per_worker if resources.gpus_per_worker is not None else min(1, known.gpus)
    memory = memory_bytes(config, resources, model, gpus)
    unknown = known.no_speed(config.precision) if gpus else ""
    ranks, looks = _ranks(resources, gpus, known), Measurements.of(recipe, inputs, steps)
    training = CostedPretraining(recipe, model, steps, gpus, ranks, inputs["shards"][0], known, looks)
    beside = max(1, known.cluster.room_for(gpus, training.cores)) if gpus else MACHINE
    return Estimate(
        steps=steps,
        images=images,
        flops=flops,
        bytes=saved * _kept_steps(recipe),
        memory_bytes=memory,
        hours=None if unknown else training.seconds / 3600,
        costs=None if unknown else training.facts(),
        num_classes=num_classes[0],
        class_names=None if names is None else tuple(names.values()),
        model=model.model_dump(mode="json"),
        averaged=config.ema is not None,
        recipe=config.model_dump(mode="json"),
        notes=(
            *_notes(recipe, model, known.gpu_bytes if gpus else None, beside),
            *((unknown,) if unknown else _doubts(training)),
        ),
    )


def _doubts(training: CostedPretraining) -> Iterator[str]:
    yield from training.doubts()
    needed, has = training.workers * sum(training.memory.values()), training.known.host_bytes
    if not training.gpus_each and 0 < has < needed:
        told = f"its workers need {needed / 1e9:.3g} GB together, and this machine has {has / 1e9:.3g}"
        yield f"{told}: fewer workers or a smaller micro_batch need less"
    yield from training.measurements.doubts(training.measuring_s, training.seconds)


def _ranks(resources: PretrainResources, gpus: float, known: Known) -> int:
    """As many as the plan's machines hold, between the least and the most."""
    held = resources.most_workers
    if gpus and known.gpus:
        held = known.room(known.cluster.cores_for(resources.cpus_per_worker, gpus), gpus)
    if known.is_one_machine and not known.gpus:
        held = known.cores * RANKS_PER_CORE // (resources.cpus_per_worker or 1)
    return max(resources.least_workers, min(resources.most_workers, held))


def _steps_before(recipe: ResolvedRecipe, inputs: Given) -> int:
    """Steps of the training that this one goes on with."""
    config, given = recipe.config, next(iter(inputs.get("continue", ())), None)
    if isinstance(given, Checkpoint):
        refuse_change(config, [one for one in inputs["shards"] if isinstance(one, ShardSet)], given)
        refuse_end(recipe.total_steps, given.step, given.uri)
        return given.step
    if isinstance(given, Estimate) and given.recipe is not None and given.steps is not None:
        refuse(changed_fields(PretrainConfig.model_validate(given.recipe), config), "the checkpoint it needs")
        refuse_end(recipe.total_steps, given.steps, "the checkpoint it needs")
        return given.steps
    return 0


def memory_bytes(config: PretrainConfig, resources: PretrainResources, model: ModelSettings, gpus: float = 1) -> int:
    """Peak memory of one worker: of its GPU, or of its process without one."""
    parameters = num_trained(config.objective, model)
    return int(sum(terms(config, resources, model, parameters, gpus > 0).values()))


def _shards(config: PretrainConfig, inputs: Given) -> tuple[int, list[int | None]]:
    """Training images of all sets together, 0 while that of one is not known; and the classes of each."""
    found: list[ShardSet | Estimate] = []
    for shards in inputs.get("shards", ()):
        if not isinstance(shards, ShardSet | Estimate):
            raise UsageError("estimate a pretraining", f"its shards are a {shards.kind}", "name a node that ingests")
        if shards.splits is not None:
            check_shards(*_facts(shards, "the shards of this run"), config)
        check_classes(_uri(shards), shards.num_classes, config)
        found.append(shards)
    counts = [(shards.splits or {}).get(SPLIT, 0) for shards in found]
    return sum(counts) if all(counts) else 0, [shards.num_classes for shards in found]


def _check_init(inputs: Given, model: ModelSettings, names: Mapping[int, str] | None) -> None:
    """`names` are those of the shards, where they are known."""
    for init in inputs.get("init", ()):
        facts, uri = getattr(init, "model", None), getattr(init, "uri", "the weights of this run")
        check_init(facts, model, uri)
        head = known_names(init) if facts and facts.classes else None
        if names and head:
            check_init_names(uri, head, _uri(inputs["shards"][0]), names)


def _check_classes(config: PretrainConfig, inputs: Given, num_classes: Sequence[int | None]) -> None:
    """UsageError for sets of other classes, among those that are known already."""
    labelled, known = config.objective.labelled, [count for count in num_classes if count is not None]
    if labelled and len(set(known)) > 1:
        asked, found = "pretrain on several sets of shards", f"they have {' and '.join(map(str, known))} classes"
        raise UsageError(asked, found, "ingest them with the same classes in the same order")
    sets = [(_uri(one), names) for one in inputs.get("shards", ()) if (names := known_names(one)) is not None]
    if labelled:
        refuse_other_classes([(uri, tuple(names.values())) for uri, names in sets])


def _uri(shards: Artifact | Estimate) -> str:
    return shards.uri if isinstance(shards, Artifact) else "a set of this run"


def _facts(shards: ShardSet | Estimate, name: str) -> tuple[str, Mapping[str, int], bool]:
    """Where it lies, its splits, and whether it is known to be multi-label."""
    if isinstance(shards, ShardSet):
        return shards.uri, shards.splits, shards.multi_label
    reckoned = {split: max(1, count) for split, count in (shards.splits or {}).items()}  # a small share rounds to none
    return name, reckoned, False


def _kept_steps(recipe: ResolvedRecipe) -> int:
    """Checkpoints that the node leaves: the newest, and the milestones before them."""
    resources, total = recipe.resources, recipe.total_steps
    milestones = total // recipe.milestone_steps if recipe.milestone_steps else 0
    return min(resources.keep + milestones, -(-total // recipe.checkpoint_steps) + milestones)


def _notes(recipe: ResolvedRecipe, model: ModelSettings, room: float | None, beside: int) -> list[str]:
    """What is allowed and may be a slip; `room` is a GPU's memory where there are any, `beside` a machine's workers."""
    config, resources, notes = recipe.config, recipe.resources, []
    micro = config.batch_images // recipe.micro_batch
    if idle := -micro % resources.most_workers:
        slots = micro + idle
        told = f"{micro} micro-batches on {resources.most_workers} workers: {idle} of {slots} passes are padding"
        notes.append(f"{told}; {_even(micro, resources.most_workers)} workers have none")
    note = batch_note(recipe.epoch_images, config.batch_images, recipe.micro_batch, resources.most_workers, beside)
    if note and not config.mix:
        notes.append(note)
    if recipe.checkpoint_steps > recipe.total_steps:
        every = resources.checkpoint_every
        notes.append(f"checkpoint_every {every} is longer than the run: its last step alone is saved")
    if config.model.family == "vit" and (rest := config.model.image_px % config.model.sizes.patch_px):
        notes.append(f"patches of {config.model.sizes.patch_px} px leave {rest} of {config.model.image_px} px out")
    if room is not None:
        notes.extend(MemoryAdvice(config, resources, model).notes(room))
    notes.extend(_split_further(config, resources))
    return notes + doubts(_training(recipe))


def _even(micro_batches: int, workers: int) -> str:
    """Name the numbers of workers next to this one that share the micro-batches evenly."""
    fewer = max(count for count in range(1, workers) if not micro_batches % count)
    more = min((count for count in range(workers, micro_batches + 1) if not micro_batches % count), default=None)
    return f"{fewer} or {more}" if more else f"{fewer}"


def _split_further(config: PretrainConfig, resources: PretrainResources) -> Iterator[str]:
    """ZeRO 0 in bf16 on several workers, where ZeRO 1 is the same training with less of everything."""
    workers = resources.most_workers
    if resources.zero == 0 and config.precision == "bf16" and workers > 1:
        state, summed = 4 + config.optimizer.moment_bytes, BYTES[config.reduce_dtype]
        sent, less = 2 * summed, summed + 2  # all-reduce; reduce-scatter, and all-gather of the weights
        here = (
            f"zero 0 in bf16 keeps {state} bytes a parameter of fp32 weights and moments on each of {workers} workers"
        )
        there = f"zero 1, the same training, keeps {state / workers:.2g}, updates 1/{workers} of them and sends {less}"
        yield f"{here} and sends {sent} a step; {there}: set zero to 1"


def _training(recipe: ResolvedRecipe) -> Training:
    config, resources, warmup = recipe.config, recipe.resources, recipe.schedule.warmup
    assert warmup is not None  # a resolved schedule states it
    return Training(
        batch_images=config.batch_images,
        num_images=recipe.epoch_images,
        total=config.total,
        total_steps=recipe.total_steps,
        warmup=config.schedule.warmup,
        warmup_steps=int(warmup.amount),
        rates=(config.optimizer.peak_lr,),
        optimizer=config.optimizer.kind,
        usual_rates=config.optimizer.usual_rates,
        decay=config.ema.decay if config.ema else None,
        multiple=(resources.micro_batch or 1) * resources.most_workers,
    )
