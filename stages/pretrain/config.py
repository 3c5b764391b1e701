"""What `pretrain` takes: everything that decides the weights, and apart from it where and how fast they are made."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from vitpipe.infra.errors import UsageError
from vitpipe.stages.bounds import BatchImages, Bytes, Cores, Few, FewOrNone, Proportion, Seed, Workers
from vitpipe.stages.images.config import AugmentSettings, too_small
from vitpipe.stages.images.shares import block_counts
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.answerable import unanswerable
from vitpipe.stages.settings import PositiveDuration, Settings, micro_batch_of
from vitpipe.stages.training.config import Ema, EvaluateSettings, LayerDecay, ObjectiveSettings
from vitpipe.stages.training.optim.kinds import AnyOptimizer
from vitpipe.stages.training.optim.rules.adamw import AdamW
from vitpipe.stages.training.optim.schedule import ScheduleSettings

VALIDATION = ("test", "val")
"""Splits whose images are held out of training; the first that the shards have is measured."""


class PretrainConfig(Settings):
    """A pretraining recipe: change one field and it is another result."""

    model: ModelSettings
    """The architecture; `classes` comes from the shards when left out."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """The loss."""
    optimizer: AnyOptimizer = AdamW()
    """The update rule and its peak learning rate."""
    layer_decay: LayerDecay | None = None
    """Each layer's share of the learning rate of the layer after it, for whoever goes on from `init` on many GPUs as
    BEiT and MAE fine-tune; one rate when left out."""
    schedule: ScheduleSettings = ScheduleSettings()
    """The learning rate over the run."""
    batch_images: BatchImages
    """Images per step over all workers; the paper's 4096 (Table 3)."""
    total: PositiveDuration
    """Length of the run, such as `90 epochs`; only the last partial batch is dropped."""
    mix: tuple[Proportion, ...] = ()
    """Where `shards` names several sets: how many images of each there are in any stretch of the sequence, such as
    `[3, 1]`. An epoch is then as many images as the sets have together."""
    augment: AugmentSettings = AugmentSettings()
    """What happens to an image before the model sees it."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: weights and activations in bfloat16 with fp32 master weights and moments; fp32: everything."""
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type that gradients are summed over the ranks in, of a training in bf16. bf16 sends half of it, and rounds each
    sum of two ranks to 8 bits."""
    ema: Ema | None = None
    """Keep a running average of the parameters too, in fp32; `convert` takes it with `use: ema`."""
    evaluate: EvaluateSettings | None = None
    """Measure the model while it trains, on the split `test` or `val` of each: loss and accuracy on the shards, the
    accuracy of the model's own head on `needs.watch`, few-shot accuracy on `needs.probes`."""
    seed: Seed = 0
    """Decides initial weights, sample order, augmentation and dropout."""

    @model_validator(mode="after")
    def _falls(self) -> "PretrainConfig":
        if self.schedule.end_lr > self.optimizer.peak_lr:
            raise ValueError(
                f"schedule.end_lr {self.schedule.end_lr:g} is above optimizer.peak_lr {self.optimizer.peak_lr:g}: "
                "the rate falls from the peak to the end"
            )
        return self

    @model_validator(mode="after")
    def _sums_fit(self) -> "PretrainConfig":
        if self.reduce_dtype == "bf16" and self.precision == "fp32":
            raise ValueError("reduce_dtype bf16 would round the gradients of a training in fp32: leave it out")
        return self

    @field_validator("precision", mode="before")
    @classmethod
    def _not_half(cls, value: object) -> object:
        if value in ("fp16", "float16", "half"):
            raise ValueError(
                "fp16 is not offered: its gradients need a loss scale that skips steps until it fits, so a resume or "
                "another number of ranks would train on other steps; bf16 has the range of fp32 and needs none"
            )
        return value


class PretrainResources(Settings):
    """Where and how fast. Nothing here changes the data or the recipe; `micro_batch` changes dropout masks."""

    workers: Workers | tuple[Workers, Workers] = 1
    """Ranks that train in lockstep; `[least, most]` goes on with as many as there are machines for."""
    gpus_per_worker: int | None = Field(default=None, ge=0, le=1)
    """GPUs of one rank; by default 1 where the cluster has GPUs, else 0."""
    cpus_per_worker: Cores | None = None
    """CPU cores of one rank, used for decoding and, without a GPU, for the model; by default its GPU's share of its
    machine's, one core left for tasks, and 1 without a GPU."""
    micro_batch: BatchImages | None = None
    """Images of one forward pass; by default the largest divisor of `batch_images` up to 64."""
    zero: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: what is split over the ranks. 0 nothing, 1 optimiser, 2 gradients too, 3 weights too."""
    offload: Literal["none", "cpu"] = "none"
    """cpu: keep fp32 weights and moments in the host's memory and update them there; needs zero 1 or more."""
    activation_checkpointing: Literal["none", "blocks"] = "none"
    """blocks: keep only each block's input and compute the rest again in the backward pass: a ViT's step has a third
    more to compute, without dropout a quarter. `plan` says where a GPU has room without."""
    compile: bool = False
    """Compile the model's blocks with torch.compile on a GPU; on a CPU it has no effect."""
    checkpoint_every: PositiveDuration | None = None
    """Steps between checkpoints; by default a tenth of the run, at most 1k steps. The last step always is one."""
    keep: Few = 2
    """Newest checkpoints kept while the run goes on; older ones of this recipe are deleted."""
    milestone_every: PositiveDuration | None = None
    """Also save at each multiple of this length, and keep these checkpoints for good; by default none are."""
    cache_bytes: Bytes | None = None
    """Bytes of shards kept on each machine's local disk; left out, all it has but 1 GB. What finds no room is read
    from the store image by image."""
    max_failures: FewOrNone = 3
    """How often the gang may be restarted after losing a rank before the node fails."""
    hang_timeout_s: int = Field(default=600, ge=1, le=604_800)
    """Seconds for which a rank may be silent or keep the others waiting before it counts as lost: the stacks of all
    ranks go to their logs, and the gang is restarted. A process that does not even answer Ray has 120 at most."""
    last_save_wait_s: int = Field(default=600, ge=0, le=86400)
    """Seconds for which the last step's save, and what follows it, is tried again where a full disk or the store
    refuses it; then the node fails with 7 and names the path. Earlier saves are tried again at the next interval."""
    ledger: bool = False
    """Also write `ledger.jsonl`: the keys of the images that each committed step consumed."""

    @property
    def least_workers(self) -> int:
        """Ranks that must have their machines before training starts or goes on."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Ranks that train where there are machines for all."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


def check_inputs(config: PretrainConfig, given: Mapping[str, int]) -> list[str]:
    """What is wrong between the recipe and how many of each input there are; asked by `validate`."""
    if {"init", "continue"} <= given.keys():
        return ["`init` begins anew with given parameters, `continue` goes on with a training: remove one of them"]
    for name in ("probes", "watch"):
        if name in given and config.evaluate is None:
            return [f"{name}: scored while training, say how often by config.evaluate.every, or leave it out"]
    if "watch" in given and not config.objective.labelled:
        return [f"watch: its classes are named by the model's head, {config.objective.kind} has none: give probes"]
    if config.evaluate and "fewshot" in config.evaluate.model_fields_set and "probes" not in given:
        return ["evaluate.fewshot scores `needs.probes`, of which there are none"]
    sets, shares = given.get("shards", 0), len(config.mix)
    if sets > 1 and not shares:
        return [f"{sets} sets of shards are given: say with config.mix in which proportions, such as {[1] * sets}"]
    if shares and shares != sets:
        return [f"config.mix has {shares} proportions for {sets} {'set' if sets == 1 else 'sets'} of shards"]
    try:
        block_counts(config.mix or (1,))
    except ValueError as error:
        return [f"config.mix: {error}"]
    return []


def check(config: PretrainConfig, resources: PretrainResources) -> list[str]:
    """What is wrong between the two sections, one sentence each; needs no data."""
    batch, most = config.batch_images, resources.most_workers
    micro = micro_batch_of(batch, resources.micro_batch)
    wrong = []
    if batch < micro:
        wrong.append(f"micro_batch {micro} is a part of batch_images {batch}: set it to {batch} or less")
    elif batch % micro:
        division = f"{batch} = {batch // micro} x {micro} + {batch % micro}"
        wrong.append(f"batch_images {batch} is not a multiple of micro_batch {micro}: {division}")
    elif batch // micro < most:
        shared = f"{most} workers would share {batch // micro} micro-batch{'es' if batch > micro else ''}"
        found = f"batch_images {batch} = {batch // micro} x micro_batch {micro}"
        do = f"set micro_batch to {batch // most} or less" if most <= batch else f"set workers to {batch} or less"
        wrong.append(f"{shared}: {found}; {do}")
    if resources.least_workers > most:
        wrong.append(f"workers [{resources.least_workers}, {most}]: the first is the least of them")
    if resources.offload == "cpu" and resources.zero == 0:
        wrong.append("offload cpu moves what ZeRO splits, and zero is 0: set zero to 1 or more")
    resized = config.augment.crop in ("resmall", "area_small", "resize")
    if resized and (reason := too_small(config.augment.resize_px, config.model.image_px)):
        wrong.append(f"augment.resize_px: {reason}")
    return wrong + _too_long(config) + unanswerable(config.model, config.objective, config.augment)


def validation_split(config: PretrainConfig, splits: Sequence[Mapping[str, int]], others: bool) -> str | None:
    """The split to measure while training; None where only `others` are. UsageError when there is nothing to measure.

    `others` says whether there are probes, or sets to watch.
    """
    if config.evaluate is None:
        return None
    found = held_out(*splits)
    if found is None and not others:
        held = f"its shards hold {' and '.join(str(dict(one)) for one in splits)}, and no probes are given"
        do = f"ingest a split named {VALIDATION[0]}, give `probes` or `watch`, or leave config.evaluate out"
        raise UsageError(f"evaluate every {config.evaluate.every} of a pretraining", held, do)
    return found


def held_out(*splits: Mapping[str, int]) -> str | None:
    """The split that is not trained on and has images in one of the sets, or None."""
    return next((name for name in VALIDATION if any(one.get(name) for one in splits)), None)


def _too_long(config: PretrainConfig) -> list[str]:
    """A schedule that no run of this length holds, where it can be said without data: epochs are known at plan."""
    stated = [length for length in (config.schedule.warmup, config.schedule.cooldown) if length is not None]
    units = {length.unit for length in (*stated, config.total)}
    if "epochs" in units and len(units) > 1:
        return []
    batch = 1 if "epochs" in units else config.batch_images
    longest, total = (
        sum(length.amount * (batch if length.unit == "steps" else 1) for length in lengths)
        for lengths in (stated, [config.total])
    )
    if longest <= total:
        return []
    return [f"schedule of {' + '.join(map(str, stated))} is longer than the run of {config.total}"]
