"""`python -m stages.training.prebuild`: compile once what DeepSpeed compiles on first use."""

import os
import time

from infra.compiled_ops import compiler_environment
from stages.training.engine import build_cpu_op


def main() -> None:
    """Build the op where it is missing; instant where it is cached. Fails with the compiler's own message."""
    print("compiling DeepSpeed's shared-memory op for CPU ranks: a minute or two, once on this machine", flush=True)
    start = time.monotonic()
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.update(compiler_environment(os.environ))
    build_cpu_op()
    print(f"done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
