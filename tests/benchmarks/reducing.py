"""What it does to gradients, and to a training, to sum them over 64 ranks in bf16: as a ring does, hop by hop.

One process computes all ranks' micro-batches, so that the sums are the only thing that differs.
"""

from collections.abc import Callable

import torch
from tiny_training import images
from torch import Tensor

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.objective.losses import softmax
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.init import init_weights

RANKS, MICRO, STEPS = 64, 1, 15
MODEL = ModelSettings(
    variant=Sizes(layers=4, width=64, mlp=128, heads=2, patch_px=8), image_px=32, classes=5, stochastic_depth=0.1
)
Reduce = Callable[[Tensor], Tensor]


def ring(dtype: torch.dtype) -> Reduce:
    """Sum rows (ranks, numbers), each part of the numbers beginning at another rank and rounded at each hop."""

    def reduce(rows: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % RANKS))
        parts, place = padded.to(dtype).view(RANKS, RANKS, -1), torch.arange(RANKS)
        total = parts[place, place]
        for hop in range(1, RANKS):
            total = (total.double() + parts[(place + hop) % RANKS, place].double()).to(dtype)
        return total.reshape(-1)[: rows.shape[1]].double()

    return reduce


def exact(rows: Tensor) -> Tensor:
    """In fp64."""
    return rows.double().sum(0)


WAYS: dict[str, Reduce] = {"fp64": exact, "fp32": ring(torch.float32), "bf16": ring(torch.bfloat16)}


def trained(reduce: Reduce) -> tuple[list[float], dict[str, float]]:
    """Losses of a training whose sums are made so; and of its last step's gradients how far each way's sum is off."""
    torch.manual_seed(0)
    model = build_model(MODEL)
    init_weights(model, seed=1)
    model.train()
    masters = [torch.nn.Parameter(one.detach().clone()) for one in model.parameters()]
    optimizer = torch.optim.AdamW(masters, lr=1e-3, weight_decay=0.1)
    model.bfloat16()
    losses, rows = [], torch.empty(RANKS, sum(one.numel() for one in masters))
    for step in range(STEPS):
        total = 0.0
        for rank in range(RANKS):
            torch.manual_seed(step * RANKS + rank)
            batch = images((step * RANKS + rank) * MICRO, MICRO)
            loss = softmax(model(batch.images_BCHW), batch.labels).sum() / (RANKS * MICRO)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            rows[rank] = torch.cat([one.float().view(-1) for one in gradients])
            total += loss.item()
        summed = reduce(rows).float().split([one.numel() for one in masters])
        for master, gradient in zip(masters, summed, strict=True):
            master.grad = gradient.view_as(master)
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_([one.data for one in model.parameters()], [one.data for one in masters])
        losses.append(total)
    whole = exact(rows)
    off = {name: ((way(rows) - whole).norm() / whole.norm()).item() for name, way in WAYS.items()}
    halves = (exact(rows[::2]) - exact(rows[1::2])).norm() / whole.norm()
    return losses, off | {"noise": halves.item()}


def main() -> None:
    """A table: how far sums are off, how far losses are from those of exact sums, and the bytes that are sent."""
    found = {name: trained(way) for name, way in WAYS.items()}
    _, off = found["fp64"]
    print(f"\nSums over {RANKS} ranks, {STEPS} steps; two halves of the ranks differ by {off['noise']:.2f} of the sum")
    print(f"{'summed in':<10}{'off by':>10}{'losses off by':>15}{'last loss':>11}{'bytes a parameter, ZeRO 0 / 1':>31}")
    wanted = found["fp64"][0]
    for name, (losses, _) in found.items():
        apart = max(abs(one - other) / other for one, other in zip(losses, wanted, strict=True))
        sent = {"fp32": "8 / 6", "bf16": "4 / 4"}.get(name, "")
        print(f"{name:<10}{off[name]:>10.1e}{apart:>15.1e}{losses[-1]:>11.5f}{sent:>31}")


if __name__ == "__main__":
    main()
