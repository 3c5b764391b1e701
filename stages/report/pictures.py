"""Pictures of weights: the filters of the patch embedding and the similarity of positions (paper, section 4.5).

The report's one heavy task. Knows nothing of the page. Shapes: N tiles, P side of a patch, G patches along a side.
"""

import base64
import io

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from stages.report.albums import album
from stages.report.gallery import DrawTask, Pictures
from stages.vit.native import load_weights

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

NUM_FILTERS, FILTER_COLUMNS = 28, 7  # paper, Figure 7 left
SHEET_PX = 920
"""Width of a mosaic: twice what the page shows, for dense screens."""


def draw(task: DrawTask) -> Pictures:
    """All pictures there is something to draw from."""
    pictures = Pictures(albums=tuple(album(name, data, task.samples, task.max_classes) for name, data in task.data))
    if task.weights is None:
        return pictures
    settings, state = load_weights(task.weights, task.context.scratch / "weights")
    filters = patch_filters(state["patch_embed.proj.weight"].double().numpy())
    found = {"filters": png_uri(mosaic(filters, FILTER_COLUMNS)), "num_filters": len(filters)}
    if "pos_embed" in state and settings.grid > 1:
        similar = position_similarity(state["pos_embed"][0].double().numpy(), settings.grid)
        lowest = float(similar.min())
        tiles = colormaps["viridis"]((similar - lowest) / max(1e-9, 1 - lowest), bytes=True)[..., :3]
        found |= {"positions": png_uri(mosaic(tiles, settings.grid)), "grid": settings.grid, "lowest": lowest}
    return pictures.model_copy(update=found)


def patch_filters(weight_DCPP: Floats) -> Pixels:
    """The first principal components of the patch embedding as RGB tiles (28, P, P, 3), each over the full range."""
    width, channels, patch, _ = weight_DCPP.shape
    flat = weight_DCPP.reshape(width, -1)
    components = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2][:NUM_FILTERS]
    tiles = components.reshape(-1, channels, patch, patch).transpose(0, 2, 3, 1)
    largest = np.abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((tiles / np.maximum(largest, 1e-12) + 1) * 127.5).round().astype(np.uint8)


def position_similarity(pos_TD: Floats, grid: int) -> Floats:
    """Cosine similarity (N, G, G) of each patch's position embedding to all others; a class token is left out."""
    patches = pos_TD[-(grid**2) :]
    unit = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-12)
    return np.asarray(unit @ unit.T).reshape(-1, grid, grid)


def mosaic(tiles_NHWC: Pixels, columns: int) -> Pixels:
    """Tiles in rows, each enlarged by a whole factor, with transparent gaps: RGBA, about SHEET_PX wide."""
    number, side = tiles_NHWC.shape[:2]
    gap = max(4, SHEET_PX // columns // 14)
    factor = max(1, (SHEET_PX // columns - gap) // side)
    pitch = side * factor + gap
    sheet = np.zeros((-(-number // columns) * pitch - gap, columns * pitch - gap, 4), np.uint8)
    for place, tile in enumerate(tiles_NHWC):
        y, x = place // columns * pitch, place % columns * pitch
        large = tile.repeat(factor, axis=0).repeat(factor, axis=1)
        sheet[y : y + side * factor, x : x + side * factor, :3] = large
        sheet[y : y + side * factor, x : x + side * factor, 3] = 255
    return sheet


def png_uri(pixels: Pixels) -> str:
    """A picture inside the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
