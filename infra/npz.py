"""NumPy's files, opened by several threads of one process. No torch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib.npyio import NpzFile

HEADERS = threading.RLock()
"""Held while the header of an array is parsed. NumPy leaves that to `ast`, and CPython 3.11 and 3.12 count how deep
they are in a tree in one number for all threads: of two that parse at once, one may get a SystemError, "AST constructor
recursion depth mismatch"."""


@contextmanager
def loaded(file: Path | IO[bytes]) -> Iterator[NpzFile]:
    """Open an archive of arrays, none of them pickled, as `numpy.load` does; other threads wait until it is closed."""
    with HEADERS, np.load(file, allow_pickle=False) as arrays:
        yield arrays
