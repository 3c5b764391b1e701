"""Models for a person's own code: opened from wherever they lie, and lent to a stage as the artifact that it takes."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.landing import digest_file
from vitpipe.pipeline.store.named_weights import find_weights
from vitpipe.stages.artifacts import File, Origin, Score, Weights
from vitpipe.stages.predict.image_files import Prediction, Predictions
from vitpipe.stages.preparation import PREPARATION, Preparation
from vitpipe.stages.seal import readable
from vitpipe.stages.vit.settings_file import SETTINGS, TENSORS, read_settings

if TYPE_CHECKING:
    from vitpipe.stages.predict.manner import AnyImage
    from vitpipe.stages.predict.ready_model import ReadyResNet, ReadyViT

_LABELS = "labels.json"
Place = str | os.PathLike[str]
"""`runs/x/weights`, `file://...`, `s3://...`, RUN/NODE with a YAML as RUN, a folder of native weights, or such a one on
the Hugging Face Hub: `hf://owner/name[@revision]`."""


def load(weights: Place) -> "ReadyViT | ReadyResNet":
    """Open the weights of a run, of a fine-tuning's Score, or of a folder of native weights, as a model.

    It is a torch module in evaluation mode, fp32, on a GPU where there is one: images (B, 3, H, W), uint8 or float in
    [-1, 1], to logits (B, K); `features(images)` gives what the head sees (B, D). `labels` are the class names in the
    order of the logits, `preprocess(image)` and `predict(image)` do as the test did. Every byte of a run's weights is
    compared with its record.

    Errors: UsageError for what is not there or carries no weights; IntegrityError for damage; StorageError.
    """
    from vitpipe.stages.predict.opened_weights import open_weights  # torch, only where a model is wanted

    with tempfile.TemporaryDirectory(prefix="vitpipe-load-") as scratch:
        return open_weights(find_weights(os.fspath(weights)), Path(scratch))


def predict(
    weights: "Place | ReadyViT | ReadyResNet", images: "AnyImage | Iterable[AnyImage]", top: int = 5
) -> Prediction | Predictions:
    """Name the `top` classes of an image, a list of them, or a folder; `weights` as in `load`, or a loaded model.

    One image gives a Prediction, several give Predictions in their order. An image is a path, a file's bytes, an image
    of Pillow's or a uint8 array (H, W, 3). Errors: those of `load`, and of the model's `predict`.
    """
    return (load(weights) if isinstance(weights, str | os.PathLike) else weights).predict(images, top)


def lend(model: Any, scratch: Path) -> Weights | Score:
    """Give a stage a model as the artifact it takes: a place's own, or one written to `scratch` from a model of ours.

    What lies in a plain folder is read in place. UsageError for what is neither a place nor a model of ours.
    """
    if isinstance(model, str | os.PathLike):
        found = find_weights(os.fspath(model))
        return _of_folder(found) if isinstance(found, Path) else found
    if not _is_ours(model):
        do = "give a place, or a model of `vitpipe.load`; `vitpipe.convert` brings other libraries' weights in"
        raise UsageError(f"take the weights of a {type(model).__name__}", "it is no model of vitpipe's", do)
    from vitpipe.stages.vit.native import save_native  # the model is torch's already

    save_native(scratch / "native", model.state_dict(), model.settings)
    if hasattr(model, "manner") and model.labels:
        names = {str(number): name for number, name in enumerate(model.labels)}
        sigmoid = {"objective": "sigmoid"} if model.manner.head == "sigmoid" else {}
        (scratch / _LABELS).write_bytes(readable({"id2label": names, **sigmoid}))
    if hasattr(model, "manner") and isinstance(model.manner.way.fit, Preparation):
        (scratch / PREPARATION).write_bytes(readable(model.manner.way.fit.model_dump()))
    return _of_folder(scratch)


def _is_ours(model: Any) -> TypeGuard[Any]:
    from vitpipe.stages.vit.build import Model  # torch, for whoever gives a module has it

    return isinstance(model, Model)


def _of_folder(given: Path) -> Weights:
    """Native weights of a plain folder as an artifact, each file's digest taken now."""
    native = given.absolute() / "native" if (given / "native").is_dir() else given.absolute()
    root = native.parent
    paths = {f"native/{name}": f"{native.name}/{name}" for name in (TENSORS, SETTINGS)}
    for name in (_LABELS, PREPARATION):
        at = next((at for at in (f"{native.name}/{name}", name) if (root / at).is_file()), None)
        paths |= {name: at} if at else {}
    files = []
    for path, at in paths.items():
        digest = digest_file(root / at)
        files.append(File(path=path, at=at, bytes=digest.bytes, sha256=digest.sha256))
    model = read_settings(native / SETTINGS)
    origin = Origin(uri=f"file://{root}", fingerprint="", record_sha256="")
    return Weights(files=tuple(files), formats=("native",), model=model, origin=origin)
