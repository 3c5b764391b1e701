"""Blocks compiled by torch, one graph for all that are alike, and a word when it gives up. Knows no device."""

import logging
from collections.abc import Callable

import torch

from vitpipe.stages.vit.build import Model, blocks_of

_LOGGER = logging.getLogger("torch._dynamo.convert_frame")
_GAVE_UP = "hit config."
"""Part of what the compiler logs, and all that it does, when it has made as many graphs of a function as it may."""


def compile_blocks(
    model: Model, tell: Callable[[str], None], backend: str | Callable[..., object] = "inductor"
) -> None:
    """Compile each block, at its first call; `tell` is called once if blocks come to run without a graph.

    Blocks that differ only in parameters, buffers and sizes share graphs: what may differ otherwise, such as a drop
    rate, must be in a buffer (PyTorch's "regional compilation").
    """
    for handler in [one for one in _LOGGER.handlers if isinstance(one, _GaveUp)]:
        _LOGGER.removeHandler(handler)  # of an earlier model of this process
    _LOGGER.addHandler(_GaveUp(tell))
    for block in blocks_of(model):
        block.compile(backend=backend)


class _GaveUp(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell, self._told = tell, False

    def emit(self, record: logging.LogRecord) -> None:
        if _GAVE_UP not in record.msg or self._told:
            return
        self._told = True
        limit = torch._dynamo.config.recompile_limit
        reason = record.getMessage().partition("last reason: ")[2].partition("\n")[0]
        self._tell(
            f"blocks run uncompiled: torch has made {limit} graphs of them and makes no more; the last: {reason}"
        )
