"""One trial: train on what the protocol allows, score, and leave the outcome as a finished piece.

A pure function of its task, so that it may run anywhere and be run again. Knows no other trial.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vitpipe.infra.curves import LiveCurves, part_path
from vitpipe.infra.errors import StageError
from vitpipe.infra.storage.folders import flock
from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.artifacts import File
from vitpipe.stages.finetune.protocol import LOSS, TrialOutcome, TrialTask, write_piece
from vitpipe.stages.finetune.subsets import Indices, dev_split, training_subset
from vitpipe.stages.finetune.tuning import Recipe, score, train_steps
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.images.train import TrainImages
from vitpipe.stages.preparation import EvalWay
from vitpipe.stages.training.optim.ema import WeightAverage
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.native import load_weights, save_native
from vitpipe.stages.vit.settings_file import SETTINGS, TENSORS


def run_trial(task: TrialTask) -> tuple[TrialOutcome, File]:
    """Train and score; the outcome and its piece. Errors: Stopped, StageError when the GPU's memory runs out."""
    torch.set_num_threads(task.cpus)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        outcome = _train_and_score(task, device)
    except torch.OutOfMemoryError as error:
        asked = f"run {task.trial} with {task.micro_batch} images per pass"
        do = "set resources.micro_batch to a smaller divisor of batch_images"
        raise StageError(asked, f"the GPU ran out of memory: {error}", do) from error
    return outcome, write_piece(task.context.out, task.trial, outcome)


def _train_and_score(task: TrialTask, device: torch.device) -> TrialOutcome:
    config = task.config
    model = starting_model(task).to(device)
    train, scored = images_of(task, model.settings.image_px)
    recipe = recipe_of(task, train.num_images)
    average = WeightAverage(list(model.parameters()), config.ema.decay) if config.ema else None
    starts = range(0, recipe.total_steps * recipe.batch_images, task.micro_batch)
    batches = train.stream([(start, task.micro_batch) for start in starts], task.threads)
    losses: list[float] = []
    out = task.context.out
    live = LiveCurves(out.node, out.attempt, part_path(out.attempt, str(task.trial)))
    facts: dict[str, Any] = {
        "num_scored": scored.num_images,
        "num_train": train.num_images,
        "choice_sha256": task.choice_sha256,
    }

    def failed(**at: int) -> TrialOutcome:
        return TrialOutcome(accuracy=0, loss=None, steps=len(losses), losses=losses, **facts, **at)

    for loss in train_steps(model, batches, recipe, device):
        if math.isnan(loss):
            return failed(diverged_at=len(losses))
        losses.append(loss)
        live.add(len(losses), {LOSS: loss}, of=str(task.trial))
        if hopeless(task, losses, recipe.total_steps):
            return failed(hopeless_at=len(losses))
        if average:
            average.update()
        stop_if_asked(task.context.fence, f"run {task.trial}", f"after step {len(losses)} of {recipe.total_steps}")
    if average:
        average.put()
    named = scored.batches(task.micro_batch, threads=task.threads)
    accuracy, loss, wrong = score(model, named, device, config.precision)
    facts["wrong"] = wrong if task.choice_sha256 else ()  # of a sweep nobody looks at them
    kept = _keep(task, model) if task.keep_weights else ()
    return TrialOutcome(accuracy=accuracy, loss=loss, steps=len(losses), losses=losses, weights=kept, **facts)


def hopeless(task: TrialTask, losses: Sequence[float], total_steps: int) -> bool:
    """Whether a trial of the sweep, at the step where `stop_hopeless` looks, has learned nothing.

    Its mean loss over the last tenth of the steps so far is then not a hundredth below ln K, that of guessing.
    """
    share = task.config.stop_hopeless
    if share is None or task.trial.phase != "sweep" or len(losses) != max(1, round(share * total_steps)):
        return False
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last) > 0.99 * math.log(task.data.num_classes)


def starting_model(task: TrialTask) -> Model:
    """The model at step 0: pretrained weights under a new zero head, or a random start by seed."""
    config, seed = task.config, task.trial.seed
    if task.weights is None:
        model = build_model(config.architecture(None, task.data.num_classes))
        init_weights(model, seed)
        return model
    folder = task.context.scratch / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # trials of one machine share the copy: the first one fetches it
        flock(lock)
        old, state = load_weights(task.weights, folder)
    settings = config.architecture(old, task.data.num_classes)
    model = build_model(settings)
    new_head = config.head_init != "keep"
    model.load_state_dict(adapt_state(state, old, settings, seed, config.position_resize, new_head=new_head))
    return model


def recipe_of(task: TrialTask, num_train: int) -> Recipe:
    """The trial's numbers, once the images it trains on are counted."""
    config = task.config
    total_steps = config.total.steps(config.batch_images, num_train)
    return Recipe(
        batch_images=config.batch_images,
        micro_batch=task.micro_batch,
        total_steps=total_steps,
        schedule=config.cosine(total_steps, num_train),
        rule=config.optimizer.rule(task.trial.peak_lr),
        layer_decay=config.layer_decay,
        label_smoothing=config.label_smoothing,
        seed=task.trial.seed,
        clip_norm=config.clip_norm,
        precision=config.precision,
    )


def images_of(task: TrialTask, image_px: int) -> tuple[TrainImages, EvalImages]:
    """What the trial trains on and what it is scored on: in a sweep two parts of train, else train and the
    split that the config names."""
    config, trial, sha256 = task.config, task.trial, task.data.manifest_sha256
    labels_N: Indices = np.asarray(EvalImages.labels_of(task.data, "train", task.context.shards), dtype=np.int64)
    kept: Indices = np.arange(len(labels_N))
    if config.train_per_class is not None:
        kept = training_subset(labels_N, sha256, trial.seed, config.train_per_class)
    held = None
    if trial.phase == "sweep":
        kept, held = dev_split(labels_N, kept, sha256, config.dev)
    where, changes = task.context.shards, config.image_changes
    train = TrainImages(
        task.data, "train", image_px, changes, trial.seed, where, keep=kept, batch_images=config.batch_images
    )
    scored = EvalImages(
        task.data,
        config.split if held is None else "train",
        image_px,
        EvalWay(config.eval_resize, config.crop_px, config.antialias),
        task.context.shards,
        keep=held,
    )
    return train, scored


def _keep(task: TrialTask, model: Model) -> tuple[File, ...]:
    folder = task.context.scratch / str(task.trial)
    save_native(folder, {name: tensor.cpu() for name, tensor in model.state_dict().items()}, model.settings)
    return tuple(task.context.out.upload(folder / name, f"native/{name}") for name in (TENSORS, SETTINGS))
