"""Fixtures that tests of several rooms share, one module each."""

import os

from infra.compiled_ops import compiler_environment

pytest_plugins = ["s3_server", "faults.s3_proxy", "ray_session"]
os.environ.update(compiler_environment(os.environ))  # ranks that tests start use the op that set-up compiled
