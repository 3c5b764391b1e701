"""Each named kernel against the function it is named after, and the sine table."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torchvision.models.vision_transformer import interpolate_embeddings
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTEmbeddings

from vitpipe.infra.errors import UsageError
from vitpipe.stages.vit.positions import ResizeMode, resize_positions
from vitpipe.stages.vit.sincos import sincos_2d

GRIDS = [(14, 24), (14, 37), (16, 27), (7, 12), (24, 14)]


def table(grid: int, width: int = 6, leading: int = 1) -> Tensor:
    return torch.randn(1, leading + grid * grid, width, generator=torch.Generator().manual_seed(0))


def scipy_zoom(positions: Tensor, old: int, new: int) -> Tensor:
    """vision_transformer checkpoint.interpolate_posembed."""
    grid = positions[0, 1:].double().numpy().reshape(old, old, -1)
    zoomed = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1)
    return torch.cat([positions[:, :1], torch.from_numpy(zoomed).reshape(1, new * new, -1).float()], dim=1)


def timms(positions: Tensor, old: int, new: int) -> Tensor:
    return resample_abs_pos_embed(positions, new_size=[new, new], old_size=[old, old])


def huggingfaces(positions: Tensor, old: int, new: int) -> Tensor:
    config = ViTConfig(hidden_size=positions.shape[2], num_attention_heads=1, image_size=old * 16, patch_size=16)
    embeddings = ViTEmbeddings(config)
    embeddings.position_embeddings.data.copy_(positions)
    with torch.no_grad():
        return embeddings.interpolate_pos_encoding(
            torch.zeros(1, 1 + new * new, positions.shape[2]), new * 16, new * 16
        )


def torchvisions(positions: Tensor, old: int, new: int) -> Tensor:
    state = interpolate_embeddings(new * 16, 16, {"encoder.pos_embedding": positions})
    resized: Tensor = state["encoder.pos_embedding"]
    return resized


ORIGINS = {"vit_paper": scipy_zoom, "timm": timms, "huggingface": huggingfaces, "torchvision": torchvisions}


@pytest.mark.parametrize("mode", ORIGINS)
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_each_mode_is_its_origins(mode: ResizeMode, old: int, new: int) -> None:
    positions = table(old)
    found, wanted = resize_positions(positions, old, new, mode), ORIGINS[mode](positions, old, new)
    assert (found - wanted).abs().max() <= 1e-6


def test_no_two_modes_agree() -> None:
    found = [resize_positions(table(14), 14, 24, mode) for mode in ORIGINS]  # type: ignore[arg-type]
    for one in range(4):
        for other in range(one):
            assert (found[one] - found[other]).abs().max() > 1e-3


def test_the_papers_kernel_is_scipys_in_double() -> None:
    positions = table(14).double()
    grid = positions[0, 1:].numpy().reshape(14, 14, -1)
    zoomed = scipy.ndimage.zoom(grid, (24 / 14, 24 / 14, 1), order=1).reshape(576, -1)
    assert np.abs(resize_positions(positions, 14, 24, "vit_paper")[0, 1:].numpy() - zoomed).max() <= 1e-12


def test_oblong_grids_and_tables_without_a_class_row() -> None:
    positions = table(4, leading=0)
    resized = resize_positions(positions, 4, (6, 3), "vit_paper")
    assert resized.shape == (1, 18, 6)
    assert torch.equal(resized[0, [0, 2, 15, 17]], positions[0, [0, 3, 12, 15]])  # corners stay
    assert resize_positions(positions, (2, 8), (4, 16), "timm").shape == (1, 64, 6)


def test_the_same_grid_is_left_alone() -> None:
    positions = table(5)
    assert resize_positions(positions, 5, 5, "timm") is positions


def test_a_table_of_another_grid_is_refused() -> None:
    with pytest.raises(UsageError, match=r"26 rows, 4 x 4 = 16"):
        resize_positions(table(5), 4, 8, "vit_paper")


def test_sine_table_is_big_visions() -> None:
    """big_vision models/vit.py posemb_sincos_2d, in numpy."""
    y, x = np.mgrid[:5, :5]
    omega = 1.0 / (10_000.0 ** (np.arange(4) / 3))
    y, x = np.einsum("m,d->md", y.flatten(), omega), np.einsum("m,d->md", x.flatten(), omega)
    wanted = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    assert np.abs(sincos_2d(5, 16) - wanted).max() <= 1e-7
