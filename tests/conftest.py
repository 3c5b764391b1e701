"""Fixtures that tests of several rooms share, one module each, and one for all."""

import pytest

from vitpipe.infra import logs

pytest_plugins = ["s3_server", "faults.s3_proxy", "ray_session", "hub_server", "slurm_world"]


@pytest.fixture(autouse=True, scope="session")
def wrong_log_calls_fail() -> None:
    """A user's run does without the line; here it is a bug, also after what is tested has set up the log."""
    logs.RAISES = True
