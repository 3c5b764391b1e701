"""What frozen weights make of images: features for a ridge, or the class that their own head names.

A pure function of its task. Shapes: B images of a batch, N images, D features, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from infra.errors import Stopped, UsageError
from stages.evaluate.probes import linear, nearest
from stages.evaluate.quality import quality, real_accuracy
from stages.evaluate.task import EvaluateTask
from stages.images.evaluate import EvalImages
from stages.images.manifest import load_manifest
from stages.training.fewshot import Indices, draw
from stages.training.ridge import Ridge
from stages.vit.adapt import adapt_state
from stages.vit.build import Model, build_model
from stages.vit.config import ModelSettings
from stages.vit.init import init_weights
from stages.vit.native import load_weights

Floats = npt.NDArray[np.float32]
Extract = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Probed:
    """What probes of one task found."""

    accuracies: dict[int, dict[int, float]]
    """By seed and number of shots; 0 shots are all training images."""
    chosen: dict[int, dict[int, float]]
    """linear: the penalty that was chosen, likewise."""


def probe(task: EvaluateTask) -> Probed:
    """Accuracy on the whole test split by seed and number of shots, for the task's seeds.

    Only training images that a seed draws pass through the model: the others could not change the result.
    """
    config, classes = task.config, task.data.num_classes
    labels_N: Indices = np.asarray(EvalImages.labels_of(task.data, "train", task.cache), dtype=np.int64)
    whole = {0: np.arange(len(labels_N))}
    draws = {seed: draw(labels_N, classes, seed, config.drawn) if config.drawn else whole for seed in task.seeds}
    drawn = np.unique(np.concatenate([rows for supports in draws.values() for rows in supports.values()]))
    extract, image_px = extractor(task)
    train_ND = run_over(task, "train", drawn, image_px, extract)
    test_MD = run_over(task, "test", None, image_px, extract)
    test_labels_M: Indices = np.asarray(EvalImages.labels_of(task.data, "test", task.cache), dtype=np.int64)
    found = Probed({}, {})
    for seed, supports in draws.items():
        rows = {shots: np.searchsorted(drawn, chosen) for shots, chosen in supports.items()}
        fitted = {shots: _fit(task, seed, train_ND[n], labels_N[drawn][n], test_MD) for shots, n in rows.items()}
        found.accuracies[seed] = {shots: float((named == test_labels_M).mean()) for shots, (named, _) in fitted.items()}
        found.chosen[seed] = {shots: l2 for shots, (_, l2) in fitted.items() if l2 is not None}
    return found


def _fit(
    task: EvaluateTask, seed: int, train_ND: Floats, labels_N: Indices, test_MD: Floats
) -> tuple[Indices, float | None]:
    config, classes = task.config, task.data.num_classes
    if config.method == "fewshot":
        return Ridge.fit(train_ND, labels_N, classes).predict(test_MD, config.l2), None
    if config.method == "linear":
        return linear(train_ND, labels_N, test_MD, classes, config.l2_sweep, seed, _device())
    return nearest(train_ND, labels_N, test_MD, classes, config.neighbours, config.temperature, _device()), None


def classify(task: EvaluateTask) -> tuple[float, dict[str, Any]]:
    """The share of the test split that the weights' own head names right, classes matched by name; what stands beside.

    UsageError when the data has a class that the weights do not know.
    """
    assert task.weights is not None
    known = task.weights.read_json("labels.json")["id2label"]
    numbers = {name: int(number) for number, name in known.items()}
    names = load_manifest(task.data).classes
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise UsageError(
            f"classify {task.data.uri} with {task.weights.uri}",
            f"{len(unknown)} of {len(names)} classes are unknown to the weights, {unknown[0]!r} for one",
            "fine-tune on these classes, or use method fewshot",
        )
    model = pretrained(task)
    logits_NK = run_over(task, "test", None, model.settings.image_px, model)
    labels = EvalImages.labels_of(task.data, "test", task.cache)
    theirs = np.array([numbers[name] for name in names])
    if task.config.method == "real":
        right_NK = np.zeros(logits_NK.shape, dtype=np.float32)
        right_NK[:, theirs] = labels if labels.ndim == 2 else np.eye(len(names))[np.asarray(labels, dtype=np.int64)]
        value, counted = real_accuracy(logits_NK.argmax(axis=1), right_NK)
        return value, {"counted": counted}
    labels_N: Indices = theirs[np.asarray(labels, dtype=np.int64)]
    return float((logits_NK.argmax(axis=1) == labels_N).mean()), quality(logits_NK, labels_N)


def extractor(task: EvaluateTask) -> tuple[Extract, int]:
    """What turns images (B, 3, H, W) into features (B, D), and the image size it wants."""
    config = task.config
    if config.features == "raw_pixels":
        image_px = config.image_px or settings_of(task).image_px
        return lambda images_BCHW: images_BCHW.flatten(1), image_px
    if config.features == "weights":
        model = pretrained(task)
    else:
        model = build_model(settings_of(task)).to(_device()).eval()
        init_weights(model, task.seeds[0])
    return model.features, model.settings.image_px


def settings_of(task: EvaluateTask) -> ModelSettings:
    """The weights' architecture at the size of image that is asked for."""
    assert task.weights is not None
    facts = ModelSettings.model_validate(task.weights.model).model_dump()
    return ModelSettings.model_validate({**facts, "image_px": task.config.image_px or facts["image_px"]})


def pretrained(task: EvaluateTask) -> Model:
    """The given model with its own head, positions resized where the image size asks for it."""
    assert task.weights is not None
    settings = settings_of(task)
    old, state = load_weights(task.weights, task.context.scratch / "weights")
    model = build_model(settings)
    model.load_state_dict(adapt_state(state, old, settings, 0, task.config.position_resize, new_head=False))
    return model.to(_device()).eval()


@torch.inference_mode()
def run_over(task: EvaluateTask, split: str, keep: Indices | None, image_px: int, extract: Extract) -> Floats:
    """`extract` of every image kept, (N, D), in manifest order. Stopped when someone wants us to end."""
    torch.set_num_threads(task.cpus)
    device, rows = _device(), []
    images = EvalImages(task.data, split, image_px, task.config.eval_resize, task.cache, keep=keep)
    for batch in images.batches(task.batch_images, threads=task.cpus):
        with torch.autocast(device.type, torch.bfloat16, enabled=task.config.precision == "bf16"):
            rows.append(extract(batch.images_BCHW.to(device)).float().cpu().numpy())
        if reason := task.context.fence.stopping():
            raise Stopped(f"extract features of the split {split}", f"after {len(rows)} batches: {reason}")
    return np.concatenate(rows)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
