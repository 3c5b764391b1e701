"""One real Ray for the whole test session, started by the first test that needs it."""

import os
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from vitpipe.infra.ray import connect as cluster

cluster.prepare_environment()  # before any test module imports ray


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """An embedded Ray with two CPUs at least, as `vitpipe run` starts it; its workers can import the test modules."""
    with (
        mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}),
        cluster.connect("tests", cpus_wanted=2, about={"job_name": "tests"}) as connected,
    ):
        yield connected
