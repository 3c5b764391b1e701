"""All ranks do a thing, and all of them know how it ended for each. Knows no training."""

import pickle
from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from vitpipe.infra.errors import VitpipeError, gravest

T = TypeVar("T")


def each(work: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """Do `work` on every rank; every rank's result, in order of rank. `group` is of all ranks too, the default one's.

    When it fails on any, all ranks raise the same error: the gravest of them, so that none waits for the others.
    """
    return _results(_try(work), group)


def on_first(work: Callable[[], T], rank: int, group: dist.ProcessGroup | None = None) -> T:
    """Do `work` on rank 0; its result, or its error, on all."""
    outcome = _try(work) if rank == 0 else (None, None)
    return _results(outcome, group)[0]


def _try(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # raised again by `_results`, on every rank
        return None, error


def _results(outcome: tuple[T | None, Exception | None], group: dist.ProcessGroup | None) -> list[T]:
    outcomes: list[bytes] = [b""] * dist.get_world_size()
    dist.all_gather_object(outcomes, _pickled(outcome), group=group)
    results, errors = zip(*(pickle.loads(one) for one in outcomes), strict=True)
    known = [error for error in errors if isinstance(error, VitpipeError)]
    if known:
        raise gravest(known)
    for error in errors:
        if error is not None:
            raise error
    return list(results)


def _pickled(outcome: tuple[T | None, Exception | None]) -> bytes:
    try:
        return pickle.dumps(outcome)
    except Exception:  # an error that does not travel travels as its words
        return pickle.dumps((None, RuntimeError(repr(outcome[1]))))
