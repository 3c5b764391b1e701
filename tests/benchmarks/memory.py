"""Highest memory of a rank in real steps, beside the plan's number.

PYTHONPATH=.:tests python -m tests.benchmarks.memory [FIRST [END]]
"""

import itertools
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.step_memory import Case, measured
from vitpipe.stages.vit.flops import num_parameters

STAGES = [
    Case(variant, precision, zero, ranks)
    for variant, precision, ranks, zero in itertools.product(("S/16", "B/16"), ("fp32", "bf16"), (1, 2), range(4))
]
"""Every ZeRO stage, precision and number of ranks."""
OPTIONS = [
    Case("S/16", "fp32", 1, 1, micro_batch=16), Case("S/16", "bf16", 1, 1, micro_batch=16),
    Case("S/16", "fp32", 1, 1, micro_batch=16, recompute=True), Case("S/16", "bf16", 2, 2, micro_batch=8),
    Case("S/16", "fp32", 1, 2, ema=True, saves=True), Case("S/16", "bf16", 1, 2, ema=True, saves=True),
    Case("S/16", "fp32", 3, 2, saves=True), Case("S/16", "bf16", 2, 1, ema=True, saves=True),
    Case("S/16", "fp32", 1, 2, offload=True), Case("S/16", "bf16", 1, 1, offload=True),
    Case("S/16", "bf16", 2, 2, offload=True), Case("S/16", "bf16", 3, 1, offload=True),
    Case("S/16", "bf16", 1, 2, accumulation_steps=2), Case("S/16", "bf16", 2, 2, accumulation_steps=2),
    Case("S/16", "fp32", 2, 2, accumulation_steps=2),
    Case("S/16", "bf16", 1, 2, state_dtype="bf16"), Case("S/16", "fp32", 0, 1, state_dtype="bf16"),
    Case("S/16", "fp32", 1, 1, kind="lion"), Case("S/16", "bf16", 1, 2, kind="lion", state_dtype="bf16", saves=True),
    Case("S/16", "fp32", 1, 1, kind="sgd"), Case("S/16", "fp32", 1, 2, classes=21_843), Case("Ti/16", "fp32", 1, 1),
    Case("B/16", "fp32", 1, 1, micro_batch=8), Case("B/16", "bf16", 1, 2, ema=True, saves=True),
    Case("L/16", "bf16", 2, 2),
]  # fmt: skip
"""What else decides."""


def main(first: int = 0, end: int = len(STAGES + OPTIONS)) -> None:
    print("measured, planned in MB, their ratio, bytes a parameter")
    for number, case in list(enumerate(STAGES + OPTIONS))[first:end]:
        with tempfile.TemporaryDirectory() as folder:
            found = max(one.bytes for one in measured(case, Path(folder), 3))
        each, told = found / num_parameters(case.config.model), _differs(case)
        ratio = found / case.planned
        print(f"{number:3} {found / 1e6:7.0f} {case.planned / 1e6:7.0f} {ratio:5.2f} {each:6.1f}  {told}", flush=True)


def _differs(case: Case) -> str:
    """What is not as usual in a case."""
    usual = asdict(Case())
    return " ".join(f"{name}={value}" for name, value in asdict(case).items() if value != usual[name])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
