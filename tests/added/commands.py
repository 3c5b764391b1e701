"""Runs vitpipe's commands one after another in this process, without Ray, and prints what each said as a line of JSON.

Arguments are commands; one that begins with `>>` appends its second word, as a line, to the file that is its first.
"""

import contextlib
import io
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from tiny_stages import in_process

from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.drive import runner


def main(commands: list[str]) -> None:
    """Run them all, whatever each gives."""
    real = runner.run

    def here(spec: Any, replacing: Any, ways: Any) -> runner.Outcome:
        return real(spec, replacing, replace(ways, connect=in_process, metrics_at=lambda: None))

    for command in commands:
        first, *rest = shlex.split(command)
        if first == ">>":
            with Path(rest[0]).open("a") as file:
                file.write(f"{rest[1]}\n")
            continue
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(runner, "run", here), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.invoke([first, *rest])
        print(json.dumps([code, out.getvalue(), err.getvalue()]))


if __name__ == "__main__":
    main(sys.argv[1:])
