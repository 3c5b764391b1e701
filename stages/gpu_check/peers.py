"""What our step is measured beside: the training in bare torch, timm's model in bare torch, ours in bare DeepSpeed.

Each as its own documentation has it: fused AdamW, autocast for bf16, gradients clipped in foreach form.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitpipe.infra.work import Rank
from vitpipe.stages.gpu_check.training import CLASSES, Setting, made_up
from vitpipe.stages.training.engine import EngineSettings, deepspeed_config
from vitpipe.stages.training.sampler import DataParallelSampler
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.init import init_weights

PEERS = ("torch", "timm", "DeepSpeed")
"""By whose loop, and in timm's case whose model."""


class Stepping(Protocol):
    """Something that makes training steps."""

    def steps(self, count: int) -> object:
        """Make so many and wait for the last."""


class Peer:
    """A training loop that is not ours; one micro-batch a step, as ours is measured."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], setting: Setting, device: str) -> None:
        self._step, self._device = step, device
        batch = made_up(setting, device != "cpu")
        self._images, self._labels = batch.images_BCHW, batch.labels

    def steps(self, count: int) -> float:
        """Make so many steps and wait for the last; its loss."""
        loss = torch.zeros(())
        for _ in range(count):
            images = self._images.to(self._device, non_blocking=True)
            loss = self._step(images, self._labels.to(self._device, non_blocking=True))
        return float(loss)


def peer(name: str, setting: Setting, rank: Rank) -> Peer:
    """Build one of `PEERS` on a rank's device. ImportError for timm where it is not installed."""
    if name == "DeepSpeed":
        return Peer(_deepspeed_step(setting, rank), setting, rank.device)
    model = _timm_model(setting) if name == "timm" else _our_model(setting)
    model = model.to(rank.device).train()
    if setting.compiled:
        model.compile()
    return Peer(_torch_step(model, setting, rank.device), setting, rank.device)


def _our_model(setting: Setting) -> nn.Module:
    model = build_model(setting.settings)
    init_weights(model, 0)
    return model


def _timm_model(setting: Setting) -> nn.Module:
    import timm  # a peer that need not be there

    if setting.model.timm is not None:
        made: nn.Module = timm.create_model(setting.model.timm, num_classes=CLASSES)
        return made
    from timm.models.vision_transformer import VisionTransformer

    sizes = setting.settings.sizes
    told: dict[str, Any] = {"img_size": setting.model.image_px, "patch_size": sizes.patch_px, "depth": sizes.layers}
    told |= {"embed_dim": sizes.width, "num_heads": sizes.heads, "mlp_ratio": sizes.mlp / sizes.width}
    other: nn.Module = VisionTransformer(num_classes=CLASSES, **told)
    return other


def _torch_step(model: nn.Module, setting: Setting, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    kernels = [one for one in model.parameters() if one.ndim >= 2]
    others = [one for one in model.parameters() if one.ndim < 2]
    groups = [{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer, parameters = torch.optim.AdamW(groups, lr=1e-5, fused=True), [*kernels, *others]
    kind, bf16, takes_bytes = torch.device(device).type, setting.precision == "bf16", hasattr(model, "settings")

    def step(images: Tensor, labels: Tensor) -> Tensor:
        given = images if takes_bytes else images.float().div_(127.5).sub_(1)
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(given).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _deepspeed_step(setting: Setting, rank: Rank) -> Callable[[Tensor, Tensor], Tensor]:
    import deepspeed  # as in the engine: only on a rank

    sampler = DataParallelSampler(setting.micro_batch, setting.micro_batch, rank.rank, rank.world_size)
    told = EngineSettings(setting.zero, setting.precision, 1.0, setting.model.image_px)
    config = deepspeed_config(told, sampler, torch.device(rank.device)) | {"gradient_clipping": 1.0}
    model = _our_model(setting).to(rank.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(engine(images).float(), labels)
        engine.backward(loss)
        engine.step()
        return loss.detach()

    return step
