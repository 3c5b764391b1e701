"""The report's one heavy task: the data's albums, and what a model looks like inside (paper, section 4.5).

Knows nothing of the page. Shapes: N tiles, P side of a patch, G patches along a side, L layers, H heads.
"""

import math
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.images.decode import Pixels
from vitpipe.stages.images.resize import centre, resize_small
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.report.albums import THUMBNAIL_PX, album
from vitpipe.stages.report.gallery import Distances, DrawTask, Filters, Inspection, Pictures, Positions, Rollout
from vitpipe.stages.report.samples import one_each, read_image, spread
from vitpipe.stages.report.sheets import mosaic, pairs, png_uri, webp_uri
from vitpipe.stages.report.wording import last_part
from vitpipe.stages.report.wrong_images import draw_wrong
from vitpipe.stages.training.checkpoint.step_weights import open_step
from vitpipe.stages.vit import inspect
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.native import load_weights

FILTER_COLUMNS = 7  # paper, Figure 7 left: four rows of seven
IMAGES_AT_ONCE = 16


def draw(task: DrawTask) -> Pictures:
    """Draw the albums, and the model's pictures where there are weights."""
    shown = task.config
    albums = tuple(album(name, data, shown.samples, shown.max_classes) for name, data in task.data)
    wrong = tuple(map(draw_wrong, task.wrong))
    return Pictures(albums=albums, inside=look_into(task) if task.weights else None, wrong=wrong)


def look_into(task: DrawTask) -> Inspection:
    """Make every picture that has a meaning for this model, and a sentence for each that has none."""
    torch.set_num_threads(task.cpus)
    model, source = _model(task)
    settings = model.settings
    left_out: list[str] = []
    found: dict[str, Any] = {}
    seen = (("Filters", inspect.no_filters, _filters), ("Positions", inspect.no_positions, _positions))
    for name, why, look in seen:
        if reason := why(settings):
            left_out.append(f"{name} are left out: {reason}.")
        elif isinstance(model, ViT):
            found[name.lower()] = look(model)
    if reason := inspect.no_attention(settings) or _no_images(task):
        left_out.append(f"Attention is left out: {reason}.")
    else:
        assert task.images is not None
        found |= _attention(model, task.images, task)
    return Inspection(source=source, left_out=tuple(left_out), **found)


def _no_images(task: DrawTask) -> str | None:
    if task.config.attention_images == 0:
        return "the config asks for no images"
    return None if task.images else "the report knows no images to show the model"


def _model(task: DrawTask) -> tuple[Model, str]:
    """The model to look into, on a GPU where there is one, and where it is from."""
    weights, scratch = task.weights, task.context.scratch / "weights"
    assert weights is not None
    name = last_part(weights.uri)
    if isinstance(weights, Checkpoint):
        settings = weights.model
        opened = open_step(weights, scratch, task.config.step)
        state = {name: torch.from_numpy(array) for name, array in opened}
        source = f"{name} at step {task.config.step or weights.step:,}"
    else:
        settings, state = load_weights(weights, scratch)
        source = f"{name}, a fine-tuned model" if weights.kind == "Score" else name
    model = build_model(settings)
    model.load_state_dict(state)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").float().eval(), source


def _filters(model: ViT) -> Filters:
    tiles, share = inspect.patch_filters(model.patch_embed.proj.weight)
    pixels = ((tiles.numpy() + 1) * 127.5).round().astype(np.uint8)
    return Filters(uri=png_uri(mosaic(pixels, FILTER_COLUMNS)), number=len(tiles), share=float(share.sum()))


def _positions(model: ViT) -> Positions:
    grid = model.settings.grid
    similar = inspect.position_similarity(model.positions(), grid)
    lowest = float(similar.min())
    tiles = colormaps["viridis"](((similar - lowest) / max(1e-9, 1 - lowest)).numpy(), bytes=True)[..., :3]
    beside, in_line, elsewhere = _by_place(similar)
    return Positions(
        uri=png_uri(mosaic(tiles, grid)),
        grid=grid,
        fixed=model.settings.position == "sincos2d",
        lowest=lowest,
        beside=beside,
        in_line=in_line,
        elsewhere=elsewhere,
    )


def _by_place(similar_NGG: Tensor) -> tuple[float, float | None, float]:
    """Mean similarity of adjacent patches, of those further apart in one row or column, and of all others."""
    grid = similar_NGG.shape[-1]
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    rows = (row.flatten()[:, None] - row.flatten()).abs()
    columns = (column.flatten()[:, None] - column.flatten()).abs()
    beside, line = rows + columns == 1, (rows == 0) ^ (columns == 0)
    similar_NN = similar_NGG.flatten(1)
    apart = line & ~beside
    in_line = float(similar_NN[apart].mean()) if apart.any() else None
    return float(similar_NN[beside].mean()), in_line, float(similar_NN[(rows > 0) & (columns > 0)].mean())


def _attention(model: Model, data: ShardSet, task: DrawTask) -> dict[str, Any]:
    """Attention distances and rollout over a few images: fields of an Inspection."""
    config, settings = task.config, model.settings
    split = next((name for name in ("test", "val") if data.splits.get(name)), "train")
    samples = spread(data, split, config.attention_images)
    chosen = one_each(samples, config.rollout_images)
    pixels = {id(sample): _fitted(read_image(data, sample), settings.image_px) for sample in samples}
    device = next(model.parameters()).device
    images = torch.from_numpy(np.stack(list(pixels.values()))).permute(0, 3, 1, 2).contiguous().to(device)
    distances = _distances(model, images, task)
    even = float(inspect.patch_distances(settings.grid, inspect.pitch_px(settings)).mean())
    found: dict[str, Any] = {
        "images": f"{len(samples)} images of the split {split} of {last_part(data.uri)}",
        "distances": Distances(px_LH=distances.tolist(), even_px=even, num_images=len(samples)),
    }
    if chosen:
        shown = [pixels[id(sample)] for sample in chosen]
        rows = [place for place, sample in enumerate(samples) if any(sample is one for one in chosen)]
        maps = inspect.rollout(model, images[rows], residual=config.rollout == "residual")
        found["rollout"] = _rollout(shown, maps, settings)
    return found


def _distances(model: Model, images: Tensor, task: DrawTask) -> Tensor:
    """Mean attention distance (L, H), a few images at a time. Stopped when someone wants us to end."""
    done, total = 0, torch.zeros(())
    for part in torch.split(images, IMAGES_AT_ONCE):
        stop_if_asked(task.context.fence, "look into the model", f"after {done} of {len(images)} images")
        total = total + inspect.attention_distance(model, part) * len(part)
        done += len(part)
        task.context.progress.update(done, len(images), unit="images")
    return total / len(images)


def _rollout(shown: list[Pixels], maps_BGG: Tensor, settings: ModelSettings) -> Rollout:
    photos = shown[0].shape[0] >= THUMBNAIL_PX
    patches = settings.grid**2
    strongest = math.ceil(patches / 10)
    by_patch = maps_BGG.flatten(1)
    held = by_patch.topk(strongest, dim=1).values.sum(dim=1) / by_patch.sum(dim=1)
    return Rollout(
        uri=webp_uri(pairs(shown, list(maps_BGG.numpy())), photos),
        num_images=len(shown),
        photos=photos,
        pool=settings.pool,
        strongest=strongest,
        held=float(held.mean()),
        num_patches=patches,
    )


def _fitted(image: Pixels, image_px: int) -> Pixels:
    """The middle square of the image, as a person would show it to the model."""
    return centre(resize_small(image, image_px, antialias=True), image_px, image_px)
