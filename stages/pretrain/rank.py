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
from vitpipe.stages.images.reader_watch import ReaderWatch
from vitpipe.stages.images.train import TrainImages
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.evaluating import prepared
from vitpipe.stages.pretrain.finish import finish, insist
from vitpipe.stages.pretrain.job import SPLIT, PretrainJob
from vitpipe.stages.pretrain.recorder import Recorder
from vitpipe.stages.training import agree, loop
from vitpipe.stages.training.checkpoint.checkpoints import Checkpoints
from vitpipe.stages.training.checkpoint.committed_steps import Keep, StepPlace
from vitpipe.stages.training.checkpoint.restore import Resumed
from vitpipe.stages.training.engine import Engine, EngineSettings
from vitpipe.stages.training.measure.metrics_log import LogSnapshot
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.objective.autoencoder import MaskedAutoencoder, begin
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.objective.masked_patches import MaskedPatchViT
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.build import Model, build_model, checkpoint_blocks
from vitpipe.stages.vit.compiled import compile_blocks
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.native import load_weights


def train_rank(job: PretrainJob, rank: Rank) -> None:
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


def _train(job: PretrainJob, rank: Rank, out: Out, scratch: Path) -> None:
    if rank.device == "cpu":
        torch.set_num_threads(rank.threads)
    else:
        torch.cuda.set_device(rank.device)
    agree.on_first(out.begin, rank.rank)
    sampler = DataParallelSampler(job.recipe.config.batch_images, job.recipe.micro_batch, rank.rank, rank.world_size)
    engine = build_engine(job, rank, sampler, scratch)
    recipe = job.recipe
    keep = Keep(recipe.resources.keep, recipe.milestone_steps)
    checkpoints = Checkpoints(engine, out, scratch, job.task.events, rank, keep)
    images = _images(job, engine)
    recorder = Recorder(job, rank, engine, scratch, images.keys)
    resumed = checkpoints.resume()
    place = _begin(job, rank, resumed, recorder)
    stopping = partial(_stopping, job, rank)
    first_step = resumed.manifest.step if resumed else _continued(job, checkpoints, rank)
    recorder.ready()
    rank.reached(first_step)
    try:
        for metrics in _metrics(job, rank, engine, images, first_step, recorder):
            rank.reached(metrics.step)
            recorder.step(metrics)
            with recorder.spending("checkpoint"):
                if metrics.settled and _is_saved(metrics, job, recorder):
                    checkpoints.save(metrics.step, metrics.samples_seen, recorder.extra_files(metrics) | _model(job))
                    place = StepPlace(attempt=out.attempt, step=metrics.step)
                if metrics.step == recipe.total_steps:
                    checkpoints.settle(recipe.resources.last_save_wait_s, stopping)
                elif metrics.stop:
                    checkpoints.settle()
            for saved in checkpoints.news():
                recorder.saved(saved)
            if metrics.stop and metrics.step < recipe.total_steps:
                raise Stopped(f"pretrain {job.task.node}", f"{metrics.stop}; step {metrics.step} is committed", _AGAIN)
    finally:
        checkpoints.close()
        recorder.close()
    if rank.rank == 0:
        insist(partial(finish, out, scratch, place, recorder), recipe.resources.last_save_wait_s, stopping)


_AGAIN = "type the same command again to go on"


def _is_saved(metrics: StepMetrics, job: PretrainJob, recorder: Recorder) -> bool:
    """Whether a settled step is a checkpoint: it may only be one that is measured."""
    due = metrics.stop is not None or job.recipe.is_saved_after(metrics.step)
    return due and recorder.worth_saving(metrics)


def _clear(scratch: Path, earlier: Sequence[str], rank: Rank) -> None:
    """Remove what killed ranks of earlier attempts left on this machine's disk; the images stay for all restarts."""
    if rank.local_rank:
        return
    for attempt in earlier:
        for left in (scratch / attempt, scratch.parent / attempt):
            if left != scratch:
                shutil.rmtree(left, ignore_errors=True)


def build_engine(job: PretrainJob, rank: Rank, sampler: DataParallelSampler, scratch: Path) -> Engine:
    """Make the model that a job describes on this rank's device, as it begins, with its optimiser."""
    config, resources = job.recipe.config, job.recipe.resources
    model = _built(job)
    if isinstance(model, MaskedAutoencoder):
        begin(model, config.seed)
    else:
        init_weights(model, config.seed, head_bias=config.objective.initial_head_bias)
    if job.init is not None:
        old, state = load_weights(job.init, scratch / "init")
        model.load_state_dict(model.state_dict() | _given(state, old, job))
    if resources.activation_checkpointing == "blocks":
        checkpoint_blocks(model)
    model.to(rank.device).train()
    if resources.compile and rank.device != "cpu":
        compile_blocks(model, partial(job.task.events.emit, "uncompiled"))
    settings = EngineSettings(
        resources.zero,
        config.precision,
        config.optimizer.clip_norm,
        job.model.image_px,
        ema_decay=config.ema.decay if config.ema else None,
        offload=resources.offload == "cpu",
        layer_decay=config.layer_decay,
        reduce_dtype=config.reduce_dtype,
    )
    return Engine(model, config.optimizer, settings, sampler, rank)


def _built(job: PretrainJob) -> Model:
    objective = job.recipe.config.objective
    if objective.kind == "mae":
        return MaskedAutoencoder(job.model, objective)
    if objective.kind == "masked_patch":
        return MaskedPatchViT(job.model, objective.outputs_of_patch(job.model.sizes.patch_px))
    return build_model(job.model)


def _given(state: dict[str, Tensor], old: ModelSettings, job: PretrainJob) -> dict[str, Tensor]:
    """What the parameters of `init` come to in this model; an encoder without a head leaves ours as it is."""
    adapted = adapt_state(state, old, job.model, job.recipe.config.seed, new_head=not old.classes)
    return {name: tensor for name, tensor in adapted.items() if old.classes or not name.startswith("head.")}


def _begin(job: PretrainJob, rank: Rank, resumed: Resumed | None, recorder: Recorder) -> StepPlace | None:
    """Take over the files that were committed with the checkpoint and say where training goes on."""
    if resumed is None:
        return None
    recorder.resumed(resumed)
    if rank.rank == 0:
        manifest = resumed.manifest
        text = f"from step {manifest.step} of attempt {resumed.place.attempt}, {manifest.samples_seen} images seen"
        now = {"workers": rank.world_size, "zero": job.recipe.resources.zero}
        then = {"workers": manifest.world_size, "zero": manifest.zero}
        text += "".join(f"; {name} {then[name]} -> {now[name]}" for name in now if then[name] != now[name])
        if manifest.micro_batch != job.recipe.micro_batch:
            text += f"; micro_batch {manifest.micro_batch} -> {job.recipe.micro_batch}: dropout masks change"
        job.task.events.emit("resumed", text)
    return resumed.place


def _continued(job: PretrainJob, checkpoints: Checkpoints, rank: Rank) -> int:
    """Load what the training goes on with, if anything; the steps made before."""
    given = job.continued
    if given is None:
        return 0
    attempt = given.file(f"{given.folder}/manifest.json").at.partition("/")[0]
    checkpoints.restore.exactly(given.store(), StepPlace(attempt=attempt, step=given.step))
    if rank.rank == 0:
        text = f"from step {given.step} of {given.uri}, {given.samples_seen} images seen: its training goes on"
        job.task.events.emit("resumed", text)
    return given.step


def _metrics(
    job: PretrainJob, rank: Rank, engine: Engine, images: TrainImages, first_step: int, recorder: Recorder
) -> Iterator[StepMetrics]:
    recipe = job.recipe
    steps = loop.LoopPlan(
        seed=recipe.config.seed,
        first_step=first_step,
        total_steps=recipe.total_steps,
        lr=recipe.lr,
        settle_at=lambda step: recipe.is_saved_after(step) or recipe.is_evaluated_after(step),
        stopping=partial(_stopping, job, rank),
        skips=recorder.skips,
    )
    batches = _batches(job, engine, images, first_step, rank.threads)
    return loop.train(engine, batches, loss_fn(recipe.config.objective), steps)


def _stopping(job: PretrainJob, rank: Rank) -> str | None:
    return job.task.fence.stopping() or rank.notice()


def _images(job: PretrainJob, engine: Engine) -> TrainImages:
    config, resources, task = job.recipe.config, job.recipe.resources, job.task
    return TrainImages(
        job.shards,
        SPLIT,
        job.model.image_px,
        config.augment,
        config.seed,
        cache=ShardCache(task.scratch / "images", resources.cache_bytes, ReaderWatch(task.metrics, task.events)),
        multi_hot=job.model.classes if any(one.multi_label for one in job.shards) or config.augment.mixes else None,
        shares=config.mix,
        labelled=job.recipe.config.objective.labelled,
        pinned=engine.device.type == "cuda",
        batch_images=config.batch_images,
    )


def _batches(job: PretrainJob, engine: Engine, images: TrainImages, first_step: int, threads: int) -> Iterator[Batch]:
    ranges = engine.sampler.ranges(first_step, job.recipe.total_steps)
    return images.stream(ranges, threads, then=partial(prepared, job))


def _model(job: PretrainJob) -> dict[str, bytes | LogSnapshot]:
    """The architecture, to be committed with the state."""
    with torch.device("meta"):  # under ZeRO 3 the engine's own parameters have no shape between passes
        shapes = {name: list(parameter.shape) for name, parameter in _built(job).named_parameters()}
    model = {"settings": job.model.model_dump(mode="json"), "parameters": shapes}
    return {"model.json": json.dumps(model, indent=1).encode()}
