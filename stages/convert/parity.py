"""Prove files of weights: the same images through our model and through the library that the files are for, whether we
wrote them or others did.

Runs in a process of its own, because it needs both models in memory. Of what was written it sees what was uploaded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from vitpipe.infra.errors import IntegrityError, UsageError, VitpipeError
from vitpipe.infra.npz import loaded
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.foreign.consumer_files import consumer_files
from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import ForeignWeights, reopen
from vitpipe.stages.convert.formats.common import HALF, NPZ, Pixels, WeightsFormat, architecture, format_of, load
from vitpipe.stages.convert.links import Link
from vitpipe.stages.convert.numbers import ReadArray, stored
from vitpipe.stages.convert.own_model import load_model, load_rounded
from vitpipe.stages.convert.question import Answer, Outputs, Question, Unavailable, quiet_tokens
from vitpipe.stages.convert.task import CheckTask, ProveTask
from vitpipe.stages.convert.tensors import Tensors, open_source
from vitpipe.stages.images.prepare import prepare
from vitpipe.stages.vit.build import Model
from vitpipe.stages.vit.model import ViT

NUM_IMAGES = 4
TOLERANCE = 1e-4
"""Largest difference of any output in fp32, over the output's largest absolute value where that is above 1. Measured
differences between equal models stay below 1e-5; another GELU, epsilon or order of q, k, v is above 1e-3."""
_WRITTEN, _READ = ("logits", "features", "encoded"), ("pooled", "encoded", "logits")
"""Outputs that are compared. Most libraries have no place for the representation layer of a file they only read; where
there is no head, it is a library's own last layer, and compared too."""
LEVELS = 2
"""Largest difference, of 255 levels, of one image that two libraries bring to a model's size by the same filter, each
rounding by itself. Another filter, side or middle makes tens of the same image."""


def check(task: CheckTask) -> dict[str, Any]:
    """A written format's entry in parity.json."""
    scratch, format, dtype = task.ctx.scratch / f"check-{task.format}", format_of(task.format), task.config.dtype
    for file in task.files:
        local = scratch / file.path
        local.parent.mkdir(parents=True, exist_ok=True)
        task.ctx.out.node.download(file.at, local, expect=file.digest)
    source, folder = open_source(task.source, task.ctx.scratch / "source", task.config.use), scratch / format.name
    proof: dict[str, Any] = {"architecture": architecture(source.settings), "dtype": dtype}
    if format.links:
        proof |= _round_trip(folder / format.file, format.links(source.settings), source.read, dtype)
    if format.consumer is None:
        return _unchanged(proof, folder)
    note = format.unsaid(source.settings)
    return proof | ({"note": note} if note else {}) | _compare_written(format, format.consumer, source, folder, dtype)


def prove(task: ProveTask) -> dict[str, Any]:
    """The entry `source` of parity.json: the largest difference, or why it could not be had."""
    foreign = task.source
    named, paths = reopen(foreign, task.ctx.scratch / "source")
    facts = {"format": foreign.format, "architecture": architecture(foreign.settings)}
    consumer = named.consumer
    if consumer is None:
        return facts | {"unchecked": f"{foreign.format} files are read as they stand, by no other library"}
    model = load_model(Tensors(foreign.settings, *native_reader(named, foreign)))
    images = parity_images(foreign.settings.image_px)[:, : foreign.channels]
    is_certain = format_of(foreign.format).pixels == foreign.pixels and foreign.located.companions == ()
    # grey ones are normalised here: the three means that most configs keep for them, no library applies to one channel
    tensors, config = consumer_files(foreign, named, paths, task.ctx.scratch / "theirs")
    question = Question(
        settings=foreign.settings,
        tensors=tensors,
        config=config,
        images=_normalised(images, foreign.pixels),
        all_bf16=foreign.all_bf16 and not named.is_unwrapped,
        is_ours=False,
        is_overruled=foreign.is_overruled,
        pixels=images if foreign.channels == 3 and (foreign.says_pixels or is_certain) else None,
        photo=_photo(foreign.settings.image_px) if foreign.preparation else None,
    )
    with torch.inference_mode():
        try:
            library, theirs = _answer(load(consumer), question, foreign.uri)
        except Unavailable as error:
            return facts | {"unchecked": str(error)}
        ours = _own_outputs(model, images.expand(-1, 3, -1, -1))
    settings = foreign.settings
    last = ("features",) if settings.representation != "none" else ()
    compared = _READ if settings.classes else (*_READ[:-1], *last)
    _refuse_other_shapes(compared, ours, theirs, foreign.uri)
    figures = _figures(compared, ours, theirs, scale=theirs)
    return facts | figures | _prepared_alike(foreign, question, theirs) | {"library": library}


def parity_images(image_px: int) -> Tensor:
    """The images of every proof, uint8 (B, 3, H, W): noise over a slope, so that no patch is like another."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 128, (NUM_IMAGES, 3, image_px, image_px), generator=generator)
    slope = torch.arange(image_px) * 127 // max(1, image_px - 1)
    return (noise + slope[:, None]).to(torch.uint8)


def _answer(consumer: Callable[[Question], Answer], question: Question, uri: str) -> Answer:
    """Ask a library. UsageError for files that its own loader refuses: it would be no model that they stand for."""
    try:
        return consumer(question)
    except (Unavailable, MemoryError, VitpipeError):
        raise
    except Exception as error:  # whatever a library raises on a file that it cannot load
        why = " ".join(str(error).split())[:300]
        found = f"the library that the file is for refuses it: {type(error).__name__}: {why}"
        raise UsageError(f"prove the weights {uri}", found, "name files that it loads") from error


def _refuse_other_shapes(names: Sequence[str], ours: Outputs, theirs: Outputs, uri: str) -> None:
    for name in names:
        if name in ours and name in theirs and ours[name].shape != theirs[name].shape:
            found = f"the {name} of its library are {tuple(theirs[name].shape)}, of our model {tuple(ours[name].shape)}"
            raise UsageError(f"prove the weights {uri}", found, "name a model with one answer an image")


def _prepared_alike(foreign: ForeignWeights, question: Question, theirs: Outputs) -> dict[str, Any]:
    """The largest difference, in levels, of our way of an image to the model's size and theirs."""
    if foreign.preparation is None or question.photo is None or "prepared" not in theirs:
        return {}
    photo_HWC = question.photo.permute(1, 2, 0).numpy()
    ours = torch.from_numpy(np.array(prepare(photo_HWC, foreign.settings.image_px, foreign.preparation)))
    apart = (ours.permute(2, 0, 1).float() - theirs["prepared"].float()).abs()
    return {"prepared": {"way": str(foreign.preparation), "levels": float(apart.max()), "allowed": LEVELS}}


def _photo(image_px: int) -> Tensor:
    """An image for preparations, uint8 (3, H, W): neither square nor of the model's size, with waves of every length
    from two pixels on."""
    height, width = image_px + image_px // 3 + 3, 2 * image_px + 5
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    waves = [torch.sin(80 * rows * rows * one) * torch.cos(60 * columns * columns * one) for one in (1, 2, 3)]
    return (127.5 + 120 * torch.stack(waves)).to(torch.uint8)


def _compare_written(
    format: WeightsFormat, consumer: str, source: Tensors, folder: Path, dtype: Dtype
) -> dict[str, Any]:
    """Errors are measured against our model with weights rounded as the file's: rounding was asked for, any other
    difference was not. `max_abs_difference` is that of the logits to our unrounded model."""
    images, config = parity_images(source.settings.image_px), folder / "config.json"
    question = Question(
        settings=source.settings,
        tensors=(folder / format.file,),
        config=config if config.is_file() else None,
        images=images / 127.5 - 1 if format.pixels == HALF else _normalised(images, format.pixels),
        all_bf16=dtype == "bf16",
        is_ours=True,
    )
    with torch.inference_mode():
        try:
            library, theirs = load(consumer)(question)
        except Unavailable as error:
            return {"unchecked": str(error)}
        ours = rounded = _own_outputs(load_model(source), images)
        if dtype != "fp32":
            rounded = _own_outputs(load_rounded(format.links, source, dtype), images)
    apart = {"max_abs_difference": _largest(ours["logits"] - theirs["logits"])}
    return _figures(_WRITTEN, rounded, theirs, scale=rounded) | apart | {"library": library}


def _round_trip(path: Path, links: Iterable[Link], source: ReadArray, dtype: Dtype) -> dict[str, Any]:
    """Read a written file back with its container's own library and undo every step: is it the source, bit by bit?

    `round_trip`: `bit-identical`, perhaps but for named tensors that the format holds in another form; and
    `differing`, the tensors that came back changed without such a reason."""
    kept, changed, differing = 0, [], []
    with _reader(path) as read:
        for link in links:
            if link.to_native is None or not link.exact:
                changed += list(link.native or link.foreign)
                continue
            back = link.to_native(*(read(each) for each in link.foreign))
            for native, array in zip(link.native, back, strict=True):
                kept += 1
                if not np.array_equal(array, stored(source(native), dtype)):
                    differing.append(native)
    but = f" but for {', '.join(changed)}, held in another form" if changed else ""
    return {"round_trip": f"bit-identical{but}", "tensors": kept} | ({"differing": differing} if differing else {})


@contextmanager
def _reader(path: Path) -> Iterator[Callable[[str], NDArray[Any]]]:
    """Numbers as they are stored: bf16, which NumPy has not, as its bits."""
    if path.name == NPZ:
        with loaded(path) as arrays:
            yield lambda name: bits.view(np.uint16) if (bits := arrays[name]).dtype.kind == "V" else bits
        return
    with safe_open(path, "pt") as file:  # for NumPy its library reads no bf16
        yield lambda name: _bits_of_bf16(file.get_tensor(name)).numpy()


def _bits_of_bf16(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor


def _own_outputs(model: Model, images: Tensor) -> Outputs:
    """Those of our own model; a ResNet has no encoder to feed tokens."""
    features_BR = pooled_BD = model.features(images)
    encoded = {}
    if isinstance(model, ViT):
        if model.pre_logits is not None:
            pooled_BD = model.pool(model.encode(model.embed(images)))
        encoded = {"encoded": model.encode(quiet_tokens(model.settings))}
    return {"pooled": pooled_BD, "features": features_BR, "logits": model.head(features_BR)} | encoded


def _figures(names: Sequence[str], ours: Outputs, theirs: Outputs, scale: Outputs) -> dict[str, Any]:
    """The largest differences of outputs that both have: of the logits, or of pooled features where there are none; as
    `error` that of any output, over the largest absolute value of `scale` where that is above 1."""
    both = [name for name in names if name in ours and name in theirs]
    apart = {name: _largest(ours[name] - theirs[name]) for name in both}
    errors = [apart[name] / max(1.0, _largest(scale[name])) for name in both]
    return {
        "max_abs_difference": apart["logits" if "logits" in apart else "pooled"],
        "error": max(errors, key=lambda error: (error != error, error)),  # one that is not a number is the worst
        "tolerance": TOLERANCE,
        "images": NUM_IMAGES,
        "compared": both,
    }


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())


def _normalised(images: Tensor, pixels: Pixels) -> Tensor:
    mean, std = (torch.tensor(three[: images.shape[1]])[:, None, None] for three in pixels)
    return (images / 255 - mean) / std


def _unchanged(proof: dict[str, Any], folder: Path) -> dict[str, Any]:
    if proof.get("differing"):
        found = f"{', '.join(proof['differing'])} is not what was written"
        raise IntegrityError(f"read {folder} back", found, "check the disk")
    return proof
