"""Sums over all ranks that reach the host without making it wait. Knows no training."""

import torch
import torch.distributed as dist
from torch import Tensor


class AsyncAllReduce:
    """The sum over all ranks of `summed`, and this rank's `own`, to be read when the next step is under way.

    Both are flat fp64 tensors on the rank's device; all ranks make and read them in the same order.
    """

    def __init__(self, summed: Tensor, own: Tensor) -> None:
        self._own = len(own)
        work = dist.all_reduce(summed, async_op=True)
        if summed.is_cuda:
            work.wait()  # only orders the stream: the copy starts after the sum, and the host goes on
            values = torch.cat([summed, own])
            self._host = torch.empty_like(values, device="cpu", pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._done = torch.Event(device="cuda")
            self._done.record()
        else:
            self._work, self._summed, self._values = work, summed, own

    def read(self) -> tuple[list[float], list[float]]:
        """(summed, own); waits for this sum alone, not for what was started after it."""
        if hasattr(self, "_done"):
            self._done.synchronize()
            values = self._host.tolist()
        else:
            self._work.wait()
            values = torch.cat([self._summed, self._values]).tolist()
        split = len(values) - self._own
        return values[:split], values[split:]
