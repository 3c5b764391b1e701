"""The Vision Transformer of "An Image is Worth 16x16 Words", in one file (section 3.1; Figure 1; equations 1 to 4).

Shapes: B images, N patches, T tokens (N and the class token), D width, H heads, E = D/H, F MLP size, R size of the
representation, K classes, P side of a patch, G patches along a side. Parameter names are timm's.
Knows nothing of training, data or files; `init.py` fills the parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.depth import drop_rates, dropout, run_blocks, stochastic_depth
from vitpipe.stages.vit.hybrid import HybridEmbed
from vitpipe.stages.vit.mlp import Mlp, layer_scale, mlp_of
from vitpipe.stages.vit.patches import PatchEmbed
from vitpipe.stages.vit.positions import join_axes
from vitpipe.stages.vit.rope import rope_table, turned
from vitpipe.stages.vit.sincos import sincos_2d


class ViT(nn.Module):
    """Images (B, 3, H, W), uint8 or float in [-1, 1], to logits (B, K). UsageError when `classes` is not set."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        if settings.classes is None:
            raise UsageError("build a ViT", "its settings name no number of classes", "set model.classes")
        width, layers = settings.sizes.width, settings.sizes.layers
        self.settings = settings
        self.checkpoint_blocks = False
        self.prefix = settings.prefix  # here, as the compiler does not look up a variant's numbers
        self.patch_embed = PatchEmbed(settings) if settings.stem is None else HybridEmbed(settings)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if settings.has_class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, settings.registers, width)) if settings.registers else None
        self._add_positions(settings)
        self.pos_drop = dropout(settings.dropout)
        self.norm_pre = _norm(settings, settings.pre_norm)
        self.blocks = nn.ModuleList(Block(settings, rate) for rate in drop_rates(settings.stochastic_depth, layers))
        self.norm = _norm(settings, not settings.pool_norm)
        self.fc_norm = _norm(settings, settings.pool_norm)
        self.attn_pool = AttentionPool(settings) if settings.pool == "map" else None
        represented = settings.feature_width
        self.pre_logits = nn.Linear(width, represented) if settings.representation != "none" else None
        self.head = nn.Linear(represented, settings.classes) if settings.classes else nn.Identity()

    def _add_positions(self, settings: ModelSettings) -> None:
        width, grid = settings.sizes.width, settings.grid
        if settings.position == "learned1d":
            self.pos_embed = nn.Parameter(torch.zeros(1, settings.position_rows, width))
        elif settings.position == "learned2d":  # section D.4: X and Y tables of D/2 each, concatenated
            self.pos_embed_x = nn.Parameter(torch.zeros(grid, width // 2))
            self.pos_embed_y = nn.Parameter(torch.zeros(grid, width - width // 2))
        elif settings.position == "sincos2d":
            # real on the meta device too: a model made there and then filled has its table already
            self.register_buffer("pos_table", torch.from_numpy(sincos_2d(grid, width))[None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, K), or to features (B, R) where there is no head."""
        logits_BK: Tensor = self.head(self.features(images))
        return logits_BK

    def features(self, images: Tensor) -> Tensor:
        """Images to what the head sees (B, R): the pooled token, after the tanh layer where there is one."""
        y_BD = self.pool(self.encode(self.embed(images)))
        return y_BD if self.pre_logits is None else torch.tanh(self.pre_logits(y_BD))

    def embed(self, images: Tensor) -> Tensor:
        """Images to the tokens (B, T, D) that enter the encoder (equation 1)."""
        return self.place(self.patch_embed(images))

    def place(self, x_BTD: Tensor) -> Tensor:
        """Put embedded patches (B, N, D) after class token and registers and add their positions: tokens (B, T, D)."""
        is_placed = self.settings.position not in ("none", "relative")
        if is_placed and self.settings.no_embed_class:
            x_BTD = x_BTD + self.positions()
        if self.cls_token is not None:
            x_BTD = torch.cat([self.cls_token.expand(x_BTD.shape[0], -1, -1), x_BTD], dim=1)
        if is_placed and not self.settings.no_embed_class:
            x_BTD = x_BTD + self.positions()
        if self.reg_token is not None:
            registers_BRD, token = self.reg_token.expand(x_BTD.shape[0], -1, -1), int(self.cls_token is not None)
            x_BTD = torch.cat([x_BTD[:, :token], registers_BRD, x_BTD[:, token:]], dim=1)
        y_BTD: Tensor = self.norm_pre(self.pos_drop(x_BTD))
        return y_BTD

    def positions(self) -> Tensor:
        """Absolute position embedding (1, T, D), of patches and, where it has one, the class token, whose row is zero
        unless positions are learned in 1-D."""
        if self.settings.position == "learned1d":
            return self.pos_embed
        if self.settings.position == "learned2d":
            table_1ND = join_axes(self.pos_embed_x, self.pos_embed_y)
        else:
            dtype = self.patch_embed.proj.weight.dtype  # DeepSpeed casts parameters alone
            table_1ND = self.get_buffer("pos_table").to(dtype)
        return table_1ND if self.cls_token is None else F.pad(table_1ND, (0, 0, 1, 0))

    def encode(self, x_BTD: Tensor) -> Tensor:
        """Run tokens (B, T, D) through all blocks and the final norm (equations 2 to 4)."""
        y_BTD: Tensor = self.norm(run_blocks(self.blocks, x_BTD, self.checkpoint_blocks and self.training))
        return y_BTD

    def pool(self, x_BTD: Tensor) -> Tensor:
        """Reduce tokens (B, T, D) to one vector (B, D) for each image: the class token, or what the patches make."""
        patches_BND = x_BTD[:, self.prefix :] if self.prefix else x_BTD
        if self.attn_pool is not None:
            pooled_BD: Tensor = self.attn_pool(patches_BND)
            return pooled_BD
        normed_BD: Tensor = self.fc_norm(x_BTD[:, 0] if self.settings.pool == "cls" else patches_BND.mean(dim=1))
        return normed_BD


class Block(nn.Module):
    """Attention and MLP, each behind a norm and around a residual (equations 2 and 3)."""

    def __init__(self, settings: ModelSettings, drop_path: float) -> None:
        super().__init__()
        width = settings.sizes.width
        self.norm1 = nn.LayerNorm(width, eps=settings.norm_eps)
        self.attn = Attention(settings)
        self.ls1 = layer_scale(settings)
        self.norm2 = nn.LayerNorm(width, eps=settings.norm_eps)
        self.mlp = mlp_of(settings)
        self.ls2 = layer_scale(settings)
        self.drop_path = stochastic_depth(drop_path, settings.kept_branches)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Tokens (B, T, D) to tokens of the same shape."""
        x_BTD = x_BTD + self.drop_path(self.ls1(self.attn(self.norm1(x_BTD))))
        y_BTD: Tensor = x_BTD + self.drop_path(self.ls2(self.mlp(self.norm2(x_BTD))))
        return y_BTD


class Attention(nn.Module):
    """Multi-head self-attention (appendix A), with the relative positions of section D.4 where asked for."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, self.heads = settings.sizes.width, settings.sizes.heads
        tokens = settings.tokens
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = _norm(settings, settings.qk_norm, width // self.heads)
        self.k_norm = _norm(settings, settings.qk_norm, width // self.heads)
        self.proj = nn.Linear(width, width)
        self.proj_drop = dropout(settings.dropout)
        relative = settings.position == "relative"
        self.relative = nn.Parameter(torch.zeros(2 * tokens - 1, width // self.heads)) if relative else None
        self.rope = None if settings.rope is None else settings.rope.kind
        if settings.rope is not None:  # real on the meta device too
            table_2NE = rope_table(settings.rope, settings.grid, width // self.heads)
            self.register_buffer("rope_table", table_2NE, persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Mix tokens (B, T, D) by attention; the shape stays."""
        batch, tokens, width = x_BTD.shape
        qkv_BT3HE = self.qkv(x_BTD).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q_BHTE, k_BHTE, v_BHTE = qkv_BT3HE.permute(2, 0, 3, 1, 4).unbind(0)
        q_BHTE, k_BHTE = self.placed(q_BHTE, k_BHTE)
        bias = None if self.relative is None else relative_logits(q_BHTE, self.relative)
        y_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHTE, v_BHTE, attn_mask=bias)
        y_BTD: Tensor = self.proj_drop(self.proj(y_BHTE.transpose(1, 2).reshape(batch, tokens, width)))
        return y_BTD

    def placed(self, q_BHTE: Tensor, k_BHTE: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys as they meet: normed and turned, where the model does so."""
        q_BHTE, k_BHTE = self.q_norm(q_BHTE), self.k_norm(k_BHTE)
        if self.rope is None:
            return q_BHTE, k_BHTE
        table = self.get_buffer("rope_table")
        return turned(q_BHTE, table, self.rope), turned(k_BHTE, table, self.rope)


class AttentionPool(nn.Module):
    """A learned query attends to all patches' tokens, then an MLP (the MAP head of big_vision's models/vit.py)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, self.heads = settings.sizes.width, settings.sizes.heads
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=settings.norm_eps)
        self.mlp = Mlp(settings.model_copy(update={"dropout": 0.0, "mlp_norm": False}))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Pool tokens (B, T, D), those of patches, to (B, D)."""
        batch, tokens, width = x_BTD.shape
        head_width = width // self.heads
        q_BH1E = self.q(self.latent.expand(batch, -1, -1)).reshape(batch, 1, self.heads, head_width).transpose(1, 2)
        kv_BT2HE = self.kv(x_BTD).reshape(batch, tokens, 2, self.heads, head_width)
        k_BHTE, v_BHTE = kv_BT2HE.permute(2, 0, 3, 1, 4).unbind(0)
        y_BH1E = F.scaled_dot_product_attention(q_BH1E, k_BHTE, v_BHTE)
        y_BD = self.proj(y_BH1E.reshape(batch, width))
        pooled_BD: Tensor = y_BD + self.mlp(self.norm(y_BD))
        return pooled_BD


def relative_logits(q_BHTE: Tensor, table_OE: Tensor) -> Tensor:
    """Extra logits (B, H, T, T): the query against the embedding of its 1-D offset to each key (O = 2T-1 offsets)."""
    tokens = q_BHTE.shape[2]
    row = torch.arange(tokens, device=q_BHTE.device)
    offset_TT = row[:, None] - row[None, :] + tokens - 1
    logits_BHTO = (q_BHTE * q_BHTE.shape[-1] ** -0.5) @ table_OE.T
    bias_BHTT: Tensor = logits_BHTO.gather(-1, offset_TT.expand(*q_BHTE.shape[:2], -1, -1))
    return bias_BHTT


def _norm(settings: ModelSettings, wanted: bool, width: int | None = None) -> nn.Module:
    """A LayerNorm, or nothing where the model has none."""
    return nn.LayerNorm(width or settings.sizes.width, eps=settings.norm_eps) if wanted else nn.Identity()
