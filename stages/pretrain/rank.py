"""What one rank of a pretraining does: compose images, model and training, and act on finished steps.

Torch lives here; DeepSpeed, the store's layout and the sample order live behind the nouns this composes.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vitpipe.infra.errors import Stopped
from vitpipe.infra.work import Rank
from vitpipe.stages.contract import Out
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.prefetch import in_order
from vitpipe.stages.images.reader_watch import ReaderWatch
from vitpipe.stages.images.train import TrainImages
from vitpipe.stages.pretrain.finishing import finish, insist
from vitpipe.stages.pretrain.job import SPLIT, Job
from vitpipe.stages.pretrain.watch import Watch
from vitpipe.stages.training import agree, loop
from vitpipe.stages.training.checkpoint import Checkpoints
from vitpipe.stages.training.corruption import corrupted
from vitpipe.stages.training.deal import Deal
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.losses import loss_fn
from vitpipe.stages.training.masked import MaskedPatchViT
from vitpipe.stages.training.metrics_log import Grown
from vitpipe.stages.training.optimisers import build
from vitpipe.stages.training.restore import Resumed
from vitpipe.stages.training.steps import Keep, Place
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.build import Model, blocks_of, build_model, checkpoint_blocks
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.native import load_weights


def train_rank(job: Job, rank: Rank) -> None:
    """Train from the newest checkpoint to the last step.

    Errors, the same on all ranks: Stopped after a checkpoint was committed, and those of `loop.train` and
    `Checkpoints`.
    """
    out = job.task.out.restarted(rank.restart)
    scratch = job.task.scratch / out.attempt / f"rank-{rank.rank}"  # ranks of one machine share its disk
    _clear(job.task.scratch, out.earlier, rank)
    try:
        _train(job, rank, out, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # nothing may have been written yet


def _train(job: Job, rank: Rank, out: Out, scratch: Path) -> None:
    _set_up(job, rank)
    agree.on_first(out.begin, rank.rank)
    deal = Deal(job.course.config.batch_images, job.course.micro_batch, rank.rank, rank.world_size)
    engine = _engine(job, rank, deal, scratch)
    course = job.course
    keep = Keep(course.resources.keep, course.milestone_steps)
    checkpoints = Checkpoints(engine, out, scratch, job.task.events, rank, keep)
    images = _images(job, engine)
    watch = Watch(job, rank, engine, scratch, images.keys)
    resumed = checkpoints.resume()
    place = _begin(job, rank, resumed, watch)
    stopping = partial(_stopping, job, rank)
    first_step = resumed.manifest.step if resumed else _continued(job, checkpoints, rank)
    watch.ready()
    rank.reached(first_step)
    try:
        for facts in _facts(job, rank, engine, images, first_step, watch):
            rank.reached(facts.step)
            watch.step(facts)
            with watch.spending("checkpoint"):
                if facts.settled and _is_saved(facts, job, watch):
                    checkpoints.save(facts.step, facts.samples_seen, watch.beside(facts) | _model(job))
                    place = Place(attempt=out.attempt, step=facts.step)
                if facts.step == course.total_steps:
                    checkpoints.settle(course.resources.last_save_wait_s, stopping)
                elif facts.stop:
                    checkpoints.settle()
            for saved in checkpoints.news():
                watch.saved(saved)
            if facts.stop and facts.step < course.total_steps:
                raise Stopped(f"pretrain {job.task.node}", f"{facts.stop}; step {facts.step} is committed", _AGAIN)
    finally:
        checkpoints.close()
    if rank.rank == 0:
        insist(partial(finish, out, scratch, place, watch), course.resources.last_save_wait_s, stopping)


_AGAIN = "type the same command again to go on"


def _is_saved(facts: loop.Facts, job: Job, watch: Watch) -> bool:
    """Whether a settled step is a checkpoint: it may only be one that is measured."""
    due = facts.stop is not None or job.course.is_saved_after(facts.step)
    return due and watch.worth_saving(facts)


def _clear(scratch: Path, earlier: Sequence[str], rank: Rank) -> None:
    """Remove what killed ranks of earlier attempts left on this machine's disk; the images stay for all restarts."""
    if rank.local_rank:
        return
    for attempt in earlier:
        for left in (scratch / attempt, scratch.parent / attempt):
            if left != scratch:
                shutil.rmtree(left, ignore_errors=True)


def _set_up(job: Job, rank: Rank) -> None:
    if rank.device == "cpu":
        torch.set_num_threads(job.course.resources.cpus_per_worker)
    else:
        torch.cuda.set_device(rank.device)


def _engine(job: Job, rank: Rank, deal: Deal, scratch: Path) -> Engine:
    config, resources = job.course.config, job.course.resources
    model = _built(job)
    init_weights(model, config.seed, head_bias=config.objective.initial_head_bias)
    if job.init is not None:
        old, state = load_weights(job.init, scratch / "init")
        model.load_state_dict(model.state_dict() | _given(state, old, job))
    if resources.activation_checkpointing == "blocks":
        checkpoint_blocks(model)
    model.to(rank.device).train()
    if resources.compile and rank.device != "cpu":
        for block in blocks_of(model):
            block.compile()
    settings = EngineSettings(
        resources.zero, config.precision, config.optimizer.clip_norm, job.model.image_px,
        ema_decay=config.ema.decay if config.ema else None, offload=resources.offload == "cpu",
    )  # fmt: skip
    return Engine(model, build(model, config.optimizer), settings, deal, rank)


def _built(job: Job) -> Model:
    objective = job.course.config.objective
    if objective.kind == "masked_patch":
        return MaskedPatchViT(job.model, objective.outputs_of_patch(job.model.sizes.patch_px))
    return build_model(job.model)


def _given(state: dict[str, Tensor], old: ModelSettings, job: Job) -> dict[str, Tensor]:
    """What the parameters of `init` come to in this model; an encoder without a head leaves ours as it is."""
    adapted = adapt_state(state, old, job.model, job.course.config.seed, new_head=not old.classes)
    return {name: tensor for name, tensor in adapted.items() if old.classes or not name.startswith("head.")}


def _begin(job: Job, rank: Rank, resumed: Resumed | None, watch: Watch) -> Place | None:
    """Take over what stands beside the checkpoint and say where training goes on."""
    if resumed is None:
        return None
    watch.resumed(resumed)
    if rank.rank == 0:
        manifest = resumed.manifest
        text = f"from step {manifest.step} of attempt {resumed.place.attempt}, {manifest.samples_seen} images seen"
        now = {"workers": rank.world_size, "zero": job.course.resources.zero}
        then = {"workers": manifest.world_size, "zero": manifest.zero}
        text += "".join(f"; {name} {then[name]} -> {now[name]}" for name in now if then[name] != now[name])
        if manifest.micro_batch != job.course.micro_batch:
            text += f"; micro_batch {manifest.micro_batch} -> {job.course.micro_batch}: dropout masks change"
        job.task.events.emit("resumed", text)
    return resumed.place


def _continued(job: Job, checkpoints: Checkpoints, rank: Rank) -> int:
    """Load what the training goes on with, if anything; the steps made before."""
    given = job.continued
    if given is None:
        return 0
    attempt = given.file(f"{given.folder}/manifest.json").at.partition("/")[0]
    checkpoints.restore.exactly(given.store(), Place(attempt=attempt, step=given.step))
    if rank.rank == 0:
        text = f"from step {given.step} of {given.uri}, {given.samples_seen} images seen: its training goes on"
        job.task.events.emit("resumed", text)
    return given.step


def _facts(
    job: Job, rank: Rank, engine: Engine, images: TrainImages, first_step: int, watch: Watch
) -> Iterator[loop.Facts]:
    course = job.course
    steps = loop.Course(
        seed=course.config.seed,
        first_step=first_step,
        total_steps=course.total_steps,
        lr=course.lr,
        settle_at=lambda step: course.is_saved_after(step) or course.is_evaluated_after(step),
        stopping=partial(_stopping, job, rank),
        skips=watch.skips,
    )
    return loop.train(engine, _batches(job, engine, images, first_step), loss_fn(course.config.objective), steps)


def _stopping(job: Job, rank: Rank) -> str | None:
    return job.task.fence.stopping() or rank.notice()


def _images(job: Job, engine: Engine) -> TrainImages:
    config, resources, task = job.course.config, job.course.resources, job.task
    return TrainImages(
        job.shards, SPLIT, job.model.image_px, config.augment, config.seed,
        cache=ShardCache(task.scratch / "images", resources.cache_bytes, ReaderWatch(task.metrics, task.events)),
        multi_hot=job.model.classes if any(one.multi_label for one in job.shards) or config.augment.mixes else None,
        shares=config.mix, labelled=job.course.labelled, pinned=engine.device.type == "cuda",
    )  # fmt: skip


def _batches(job: Job, engine: Engine, images: TrainImages, first_step: int) -> Iterator[Batch]:
    config, resources = job.course.config, job.course.resources
    ranges, ahead = engine.deal.ranges(first_step, job.course.total_steps), images.ahead(engine.deal.micro_batch)
    if config.objective.kind == "masked_patch":
        patch_px, target = job.model.sizes.patch_px, config.objective.patch_target
        return in_order(
            lambda asked: corrupted(images.micro_batch(*asked), patch_px, target, config.seed),
            ranges, resources.cpus_per_worker, ahead,
        )  # fmt: skip
    return images.stream(ranges, threads=resources.cpus_per_worker, prefetch=ahead)


def _model(job: Job) -> dict[str, bytes | Grown]:
    """The architecture, to stand beside the state."""
    model = {"settings": job.model.model_dump(mode="json"), "parameters": _shapes(job)}
    return {"model.json": json.dumps(model, indent=1).encode()}


def _shapes(job: Job) -> dict[str, list[int]]:
    with torch.device("meta"):  # under ZeRO 3 the engine's own parameters have no shape between passes
        model = _built(job)
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()}
