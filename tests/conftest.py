"""Fixtures that tests of several rooms share, one module each."""

pytest_plugins = ["s3_server", "faults.s3_proxy", "ray_session"]
