"""`python -m vitpipe.stages.gpu_check`: ten minutes that show what this program does on a GPU.

Needs torch and DeepSpeed with what they need, and this repository; neither Ray, a network nor a store.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from vitpipe.infra.errors import UsageError
from vitpipe.stages.gpu_check import program
from vitpipe.stages.gpu_check.report import TABLES
from vitpipe.stages.gpu_check.sections import NAMES, chosen

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Check, print and keep; 7 where something that must hold was not shown, 2 for what cannot be asked."""
    given = argparse.ArgumentParser(prog="python -m vitpipe.stages.gpu_check", description=__doc__)
    given.add_argument("--minutes", type=float, default=10.0, help="the whole time")
    given.add_argument("--out", type=Path, default=Path("gpu-report"), help="where the report is kept")
    given.add_argument("--sections", help=f"some of {','.join(NAMES)}")
    given.add_argument("--device", choices=("cpu", "cuda:0"), help="cpu: shrunk, though there is a GPU")
    given.add_argument("--peak-flops", type=float, help="dense bf16 FLOP/s by the GPU's data sheet")
    given.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    told = given.parse_args()
    before = {number: signal.signal(number, _asked_to_end) for number in _SIGNALS}
    try:
        asked = chosen(told.sections)
        options = program.Options(told.minutes, told.out, asked, told.device, told.peak_flops)
        report = program.check(options, _nothing if told.json else _print)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told.json:
        print(json.dumps(report.to_json()))
    else:
        said = f"not shown: {', '.join(report.wrong)}" if report.wrong else "all that must hold was shown"
        print(f"\n{said}; tables in {report.folder / TABLES}")
    return program.exit_code(report.sections)


def _asked_to_end(number: int, frame: FrameType | None) -> None:
    """Leave by way of what ends the section and removes its files; a second signal does not cut that short."""
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _print(line: str) -> None:
    print(line, flush=True)


def _nothing(line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
