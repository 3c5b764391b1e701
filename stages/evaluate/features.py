"""What a frozen model makes of images, left as a piece in the store, and read back from there.

A pure function of its task. Shapes: B images of a batch, N images, D features.
"""

import hashlib
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from torch import Tensor

from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.evaluate.estimate import sized
from vitpipe.stages.evaluate.work_items import EvaluateTask, ExtractTask, FeaturePart, Features, Indices
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.native import load_weights

Floats = npt.NDArray[np.float32]


def extract(task: ExtractTask) -> FeaturePart:
    """Features of the task's images, uploaded under their digest: a task that runs again harms nobody's copy.

    Stopped when someone wants us to end.
    """
    rows_ND, images_per_second = _run_over(task)
    content = safetensors.numpy.save({"features": rows_ND, "rows": task.rows})
    sha256 = hashlib.sha256(content).hexdigest()
    file = task.out.put(f"part-{sha256[:16]}.safetensors", content)
    return FeaturePart(task.out.node.uri, file, task.rows, images_per_second)


def read(features: Features, rows: Indices, about: EvaluateTask) -> Floats:
    """Features (N, D) of the images `rows`, in that order; every byte is checked against its piece's digest.

    IntegrityError when a piece is not what was committed, or some image is in none.
    """
    folder = about.context.scratch / "features"
    place = {int(row): n for n, row in enumerate(rows.tolist())}
    taken: Floats | None = None
    for piece in features:
        local = folder / piece.file.sha256
        local.parent.mkdir(parents=True, exist_ok=True)
        open_store(piece.uri).download(piece.file.at, local, expect=piece.file.digest)
        content = safetensors.numpy.load_file(local)
        part = [(n, place.pop(row)) for n, row in enumerate(content["rows"].tolist()) if row in place]
        if taken is None:
            taken = np.empty((len(rows), content["features"].shape[1]), dtype=np.float32)
        if part:
            source, target = np.array(part).T
            taken[target] = content["features"][source]
    if place or taken is None:
        found = f"{len(place)} of {len(rows)} images are in none of its pieces"
        raise IntegrityError(f"read features of {about.data.uri}", found, "remove the run's folder _shared and go on")
    return taken


def pretrained(about: EvaluateTask) -> Model:
    """The given model with its own head, positions resized where the image size asks for it."""
    assert about.weights is not None
    settings = settings_of(about)
    old, state = load_weights(about.weights, about.context.scratch / "weights")
    model = build_model(settings)
    model.load_state_dict(adapt_state(state, old, settings, 0, about.config.position_resize, new_head=False))
    return model.to(device()).eval()


def settings_of(about: EvaluateTask) -> ModelSettings:
    """The weights' architecture at the size of image that is asked for."""
    assert about.weights is not None and about.weights.model is not None
    return sized(about.config, about.weights.model)


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _extractor(task: ExtractTask) -> tuple[Callable[[Tensor], Tensor], int]:
    """What turns images (B, 3, H, W) into features (B, D), and the image size it wants."""
    config = task.about.config
    if config.features == "raw_pixels":
        image_px = config.image_px or settings_of(task.about).image_px
        return lambda images_BCHW: images_BCHW.flatten(1), image_px
    if config.features == "weights":
        model = pretrained(task.about)
    else:
        model = build_model(settings_of(task.about)).to(device()).eval()
        init_weights(model, task.seed)
    return model.features, model.settings.image_px


@torch.inference_mode()
def _run_over(task: ExtractTask) -> tuple[Floats, float]:
    """Features (N, D) of the task's images, and the images a second of the model alone, its first batch left out."""
    about = task.about
    torch.set_num_threads(about.cpus)
    on, (model, image_px) = device(), _extractor(task)
    images = EvalImages(about.data, task.split, image_px, about.way, about.context.shards, keep=task.rows)
    rows: list[Floats] = []
    seconds: list[float] = []
    for batch in images.batches(about.batch_images, threads=about.cpus):
        began = time.perf_counter()
        with torch.autocast(on.type, torch.bfloat16, enabled=about.config.precision == "bf16"):
            rows.append(model(batch.images_BCHW.to(on)).float().cpu().numpy())
        seconds.append(time.perf_counter() - began)
        asked = f"extract features of the split {task.split}"
        stop_if_asked(about.context.fence, asked, f"after {len(rows)} batches")
    warm = slice(1, None) if len(rows) > 1 else slice(None)
    return np.concatenate(rows), sum(map(len, rows[warm])) / max(sum(seconds[warm]), 1e-9)
