"""What a step asks of a device, counted on a CPU: operations that launch work, and values that the host reads."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vitpipe.stages.images.batch import Batch
from vitpipe.stages.training.objective.losses import Loss

_FREE = frozenset([
    "empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "_unsafe_view", "_reshape_alias",
    "detach", "lift_fresh", "alias", "set_", "resize_", "is_pinned", "record_stream",
])  # fmt: skip
"""Operations beside views that launch nothing: they allocate, or look at memory otherwise."""
_READS = frozenset(["_local_scalar_dense", "equal", "is_nonzero", "nonzero", "unique", "_unique2", "masked_select"])
_READERS = frozenset(getattr(Tensor, name) for name in ("tolist", "numpy", "cpu", "__array__"))
"""Methods that move values to the host without an operation of their own, where the device is the CPU."""


@dataclass
class Asked:
    """What was counted."""

    launched: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)

    @property
    def launches(self) -> int:
        """Operations that would start a kernel on a GPU, a collective counted as one."""
        return self.launched.total()


@contextmanager
def counting() -> Iterator[Asked]:
    """Inside, all of this thread is counted."""
    asked = Asked()
    with ExitStack() as modes:
        modes.enter_context(_Operations(asked))
        modes.enter_context(_Readers(asked))
        yield asked


class _Operations(TorchDispatchMode):
    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._asked = asked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _READS:
            self._asked.reads[name] += 1
        elif not func.is_view and name not in _FREE:
            self._asked.launched[name] += 1
        return func(*args, **(kwargs or {}))


class _Readers(TorchFunctionMode):
    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._asked = asked

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READERS:
            self._asked.reads[func.__name__] += 1
        return func(*args, **(kwargs or {}))


class BareTorch:
    """The loop that a careful user writes for one GPU: lists of tensors at once, nothing read.

    bf16: weights in bf16, updated in fp32. `torch.nn.utils.clip_grad_norm_` as it is on a GPU, where it takes lists.
    """

    def __init__(self, model: nn.Module, loss: Loss, precision: str, clip_norm: float) -> None:
        self.model, self.loss, self.clip_norm = model, loss, clip_norm
        self.weights = list(model.parameters())
        if precision == "bf16":
            self.masters = [nn.Parameter(one.detach().clone()) for one in self.weights]
            model.bfloat16()
            for one in self.masters:
                one.grad = torch.zeros_like(one)
        else:
            self.masters = self.weights
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-3, fused=True)

    def step(self, batch: Batch) -> Tensor:
        """Make one step of one pass; the loss, on the device."""
        loss = (self.loss(self.model(batch.images_BCHW), batch.labels) * batch.weights_B).sum() / len(batch.labels)
        loss.backward()
        with torch.no_grad():
            gradients = [one.grad for one in self.weights]
            if self.masters is not self.weights:
                torch._foreach_copy_([one.grad for one in self.masters], gradients)
                gradients = [one.grad for one in self.masters]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            torch._foreach_mul_(gradients, torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0))
            self.optimizer.step()
            if self.masters is not self.weights:
                torch._foreach_copy_(self.weights, self.masters)
        for one in self.weights:
            one.grad = None
        return loss.detach()
