"""`python -m vitpipe.stages.gpu_check.section`: one section in a process of its own, for a CUDA error spoils a process.

Started by `program`, which reads what it writes.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

from vitpipe.stages.gpu_check.findings import Findings, Way
from vitpipe.stages.gpu_check.sections import LACKING, NAMES, perform


def main() -> int:
    """Run the section that the arguments name; 1, or LACKING, with the reason as the last line of standard error."""
    given = argparse.ArgumentParser()
    given.add_argument("name", choices=NAMES)
    given.add_argument("--device", required=True)
    given.add_argument("--shrunk", action="store_true")
    given.add_argument("--rows", type=Path, required=True)
    given.add_argument("--scratch", type=Path, required=True)
    given.add_argument("--seconds", type=float, required=True)
    given.add_argument("--peak-flops", type=float)
    told = given.parse_args()
    way = Way(told.device, told.shrunk, told.scratch, told.seconds, told.peak_flops)
    if not way.cuda:
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        perform(told.name, way, Findings(told.rows, told.seconds))
    except ModuleNotFoundError as error:
        traceback.print_exc()
        print(f"needs {error.name}", file=sys.stderr, flush=True)
        return LACKING
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        print(f"{type(error).__name__}: {first}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of a device that hangs keep nobody waiting
