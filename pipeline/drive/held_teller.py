"""Leaves beside an attempt what it holds of the cluster: now and then while it runs, and when it fails.

Of one that commits the record says it.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from vitpipe.infra.errors import LeaseLost, StorageError
from vitpipe.pipeline.store.held import PATH, HeldSoFar, held_before, held_seconds
from vitpipe.stages.contract import Out

EVERY_S = 15.0

log = logging.getLogger(__name__)


@contextmanager
def telling_held(
    out: Out, fingerprint: str, held: Callable[[], Mapping[str, float]], every_s: float = EVERY_S
) -> Iterator[None]:
    """Around an attempt's work; `held` counts the seconds of each resource. A store that refuses is only warned of."""
    before = held_before(out.node, out.earlier)
    over = threading.Event()

    def tell() -> None:
        try:
            if (now := held()) or before:
                out.node.write(f"{out.attempt}/{PATH}", HeldSoFar(held_seconds(now), before, fingerprint).encoded())
        except StorageError as error:
            log.warning("what %s holds could not be written: %s", out.attempt, error)

    def tell_again() -> None:
        while not over.wait(every_s):
            tell()

    threading.Thread(target=tell_again, name="vitpipe-held", daemon=True).start()
    try:
        yield
    except (LeaseLost, StorageError):
        raise  # nothing more is to be written, or can be
    except BaseException:
        over.set()
        tell()
        raise
    finally:
        over.set()
