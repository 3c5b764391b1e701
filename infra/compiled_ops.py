"""Where ops that are compiled on first use are cached, and what their compiler needs to be found.

Knows Python's environment, not what is compiled.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def compiler_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to set before torch compiles an extension, given those that stand.

    The cache lies beside the virtual environment, so that what set-up compiled is found by every later process; ninja
    is the one installed there, whether or not the environment was activated.
    """
    programs = Path(sys.prefix) / "bin"
    path = environment.get("PATH", os.defpath)
    found = {} if str(programs) in path.split(os.pathsep) else {"PATH": f"{programs}{os.pathsep}{path}"}
    cache = Path(sys.prefix) / "torch_extensions"
    writable = cache.exists() or os.access(sys.prefix, os.W_OK)
    if "TORCH_EXTENSIONS_DIR" not in environment and writable:
        found["TORCH_EXTENSIONS_DIR"] = str(cache)
    return found
