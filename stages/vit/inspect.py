"""What a trained model looks like inside, as arrays (paper, section 4.5, appendices D.7 and D.8; Figures 6, 7, 14).

Forward hooks compute attention weights from the queries and keys that the layers make: the model and its fused
attention stay as they are. Shapes as in `model.py`; L layers, M components, N patches without the class token.
Knows no files and draws nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.build import Model
from vitpipe.stages.vit.model import Attention, Block, ViT, relative_logits

NUM_FILTERS = 28
"""Principal components that Figure 7 (left) shows."""
_WEIGHTS_AT_ONCE = 1 << 25
"""Attention weights of one layer that are in memory at a time: 128 MiB."""

OnAttention = Callable[[int, Tensor], None]
"""Called with a layer's number and its attention weights (B, H, T, T)."""


def patch_filters(weight_DCPP: Tensor, number: int = NUM_FILTERS) -> tuple[Tensor, Tensor]:
    """Compute principal components of the patch embedding's filters, and the share of their variance each holds.

    Returns (M, P, P, 3) in [-1, 1], each scaled to its full range, and (M,); M is below `number` for a narrow model. A
    component has no sign of its own: its largest number is made positive.
    """
    width, channels, patch, _ = weight_DCPP.shape
    flat_DC = weight_DCPP.detach().double().cpu().reshape(width, -1)
    _, spread, components = torch.linalg.svd(flat_DC - flat_DC.mean(dim=0), full_matrices=False)
    components = components[:number]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    tiles_MCPP = (components / torch.where(largest == 0, 1.0, largest)).reshape(-1, channels, patch, patch)
    variance = spread**2
    share_M = variance[:number] / variance.sum().clamp_min(torch.finfo(variance.dtype).tiny)
    return tiles_MCPP.permute(0, 2, 3, 1), share_M


def position_similarity(positions_1TD: Tensor, grid: int) -> Tensor:
    """Compute the cosine similarity (N, G, G) of each patch's position embedding to all others; no class token."""
    patches_ND = positions_1TD.detach()[0, -(grid**2) :].double().cpu()
    unit_ND = patches_ND / patches_ND.norm(dim=1, keepdim=True).clamp_min(1e-12)
    similar_NGG: Tensor = (unit_ND @ unit_ND.T).reshape(-1, grid, grid)
    return similar_NGG


def patch_distances(grid: int, pitch_px: float) -> Tensor:
    """Compute the distances (N, N) between the centres of any two patches, pixels."""
    row = torch.arange(grid, dtype=torch.float64) * pitch_px
    centres_N2 = torch.cartesian_prod(row, row)
    return torch.cdist(centres_N2, centres_N2, compute_mode="donot_use_mm_for_euclid_dist")


def mean_distance(attn_BHTT: Tensor, distances_NN: Tensor) -> Tensor:
    """Average the attention distance (H,) of one layer: query to key, weighted by attention, over queries and images.

    Only patches have a place: attention to a class token is left out, and each query's other weights are normalised.
    """
    patches = distances_NN.shape[0]
    attn_BHNN = attn_BHTT[..., -patches:, -patches:].double()
    weighed_BHN = (attn_BHNN * distances_NN).sum(dim=-1)
    return (weighed_BHN / attn_BHNN.sum(dim=-1).clamp_min(1e-30)).mean(dim=(0, 2))


def roll(attn_BTT: Tensor, so_far_BTT: Tensor | None, residual: bool) -> Tensor:
    """Do one step of attention rollout: multiply this layer's weights, averaged over heads, with all layers below.

    Appendix D.8 multiplies the weights as they are; Abnar and Zuidema (2020) give half to the residual connection.
    Rows sum to 1 either way.
    """
    here_BTT = attn_BTT
    if residual:
        here_BTT = (attn_BTT + torch.eye(attn_BTT.shape[-1], dtype=attn_BTT.dtype, device=attn_BTT.device)) / 2
    here_BTT = here_BTT / here_BTT.sum(dim=-1, keepdim=True)
    return here_BTT if so_far_BTT is None else here_BTT @ so_far_BTT


@torch.inference_mode()
def attention_distance(model: Model, images: Tensor) -> Tensor:
    """Average the attention distance (L, H) over images (B, 3, H, W), pixels. ValueError as `no_attention` says."""
    vit, settings = _attending(model), model.settings
    distances = patch_distances(settings.grid, pitch_px(settings)).to(images.device)
    sums: dict[int, Tensor] = {}

    def see(layer: int, attn_BHTT: Tensor) -> None:
        seen = mean_distance(attn_BHTT, distances) * len(attn_BHTT)
        sums[layer] = sums[layer] + seen if layer in sums else seen

    for part in _parts(images, settings):
        with observed_attention(vit, see):
            vit.features(part)
    return torch.stack([sums[layer] for layer in sorted(sums)]).cpu() / len(images)


@torch.inference_mode()
def rollout(model: Model, images: Tensor, residual: bool = True) -> Tensor:
    """Compute how much of each patch (B, G, G) reaches what the head sees, by attention rollout through all layers.

    It is the class token's row; with `gap` the mean of all rows, with `map` the rows weighted by the pooling's own
    attention. Sums to 1 over patches and class token. ValueError as `no_attention` says.
    """
    vit, settings = _attending(model), model.settings
    maps = []
    for part in _parts(images, settings):
        rolled: list[Tensor] = []

        def see(layer: int, attn_BHTT: Tensor, rolled: list[Tensor] = rolled) -> None:
            mean_BTT = attn_BHTT.double().mean(dim=1)
            rolled[:] = [roll(mean_BTT, rolled[0] if rolled else None, residual)]

        with observed_attention(vit, see):
            final_BTD = vit.encode(vit.embed(part))
        maps.append((_pooled(vit, final_BTD) @ rolled[0])[:, 0, -(settings.grid**2) :])
    return torch.cat(maps).cpu().reshape(-1, settings.grid, settings.grid)


@contextmanager
def observed_attention(model: ViT, see: OnAttention) -> Iterator[None]:
    """Within the context, every pass of the model also calls `see` for each layer."""
    with ExitStack() as stack:
        for layer, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            stack.callback(block.attn.qkv.register_forward_hook(_seen(layer, block.attn, see)).remove)
        yield


def pitch_px(settings: ModelSettings) -> float:
    """Pixels from one patch to the next; for a hybrid, whose patches are cut from features, pixels of the image."""
    return settings.sizes.patch_px if settings.family == "vit" else settings.image_px / settings.grid


def no_attention(settings: ModelSettings) -> str | None:
    """Say why there is no attention to look at, or None."""
    if settings.family == "resnet":
        return "a ResNet has no attention"
    return "the image is a single patch, which can only attend to itself" if settings.grid == 1 else None


def no_positions(settings: ModelSettings) -> str | None:
    """Say why there are no position embeddings to compare patch by patch, or None."""
    if settings.family == "resnet":
        return "a ResNet has no position embedding"
    if settings.position == "none":
        return "the model has no position embedding"
    if settings.position == "relative":
        return "relative positions are embeddings of offsets, not of patches"
    return "the image is a single patch" if settings.grid == 1 else None


def no_filters(settings: ModelSettings) -> str | None:
    """Say why the patch embedding is no set of colour filters, or None."""
    if settings.family == "resnet":
        return "a ResNet has no patch embedding"
    return "a hybrid cuts its patches from a ResNet's features, not from colours" if settings.family != "vit" else None


def _attending(model: Model) -> ViT:
    if why := no_attention(model.settings):
        raise ValueError(f"no attention to look at: {why}")
    assert isinstance(model, ViT)
    return model


def _parts(images: Tensor, settings: ModelSettings) -> Iterator[Tensor]:
    weights = settings.sizes.heads * settings.tokens**2
    return iter(torch.split(images, max(1, _WEIGHTS_AT_ONCE // weights)))


def _seen(layer: int, attn: Attention, see: OnAttention) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    heads, table = attn.heads, attn.relative

    def hook(module: nn.Module, given: tuple[Tensor, ...], qkv_BT3D: Tensor) -> None:
        batch, tokens, width = given[0].shape
        qkv_BT3HE = qkv_BT3D.detach().float().reshape(batch, tokens, 3, heads, width // heads)
        q_BHTE, k_BHTE, _ = qkv_BT3HE.permute(2, 0, 3, 1, 4).unbind(0)
        q_BHTE, k_BHTE = attn.placed(q_BHTE, k_BHTE)
        logits_BHTT = (q_BHTE * q_BHTE.shape[-1] ** -0.5) @ k_BHTE.transpose(-2, -1)
        if table is not None:
            logits_BHTT = logits_BHTT + relative_logits(q_BHTE, table.float())
        see(layer, logits_BHTT.softmax(dim=-1))

    return hook


def _pooled(model: ViT, final_BTD: Tensor) -> Tensor:
    """Weights (B, 1, T) that the pooling gives to the tokens after the last layer."""
    batch, tokens, width = final_BTD.shape
    pool, prefix = model.attn_pool, model.settings.prefix
    if pool is not None:
        q_1HE = pool.q(pool.latent).double().reshape(1, pool.heads, 1, width // pool.heads)
        k_BTHE = pool.kv(final_BTD).double().reshape(batch, tokens, 2, pool.heads, width // pool.heads)[:, :, 0]
        logits_BH1T = (q_1HE * q_1HE.shape[-1] ** -0.5) @ k_BTHE.permute(0, 2, 3, 1)
        logits_BH1T[..., :prefix] = -torch.inf
        weights_B1T: Tensor = logits_BH1T.softmax(dim=-1).mean(dim=1)
        return weights_B1T
    weights_BT = final_BTD.new_full((batch, tokens), 1 / (tokens - prefix), dtype=torch.float64)
    weights_BT[:, :prefix] = 0
    if model.settings.pool == "cls":
        weights_BT = weights_BT.new_zeros(batch, tokens)
        weights_BT[:, 0] = 1
    return weights_BT[:, None]
