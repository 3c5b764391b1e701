"""The command line as a person types it, in this process."""

from collections.abc import Callable

import pytest

from vitpipe.pipeline.cli import main as cli

Vitpipe = Callable[..., tuple[int, str, str]]


def typed(capsys: pytest.CaptureFixture[str], *verb: str) -> Vitpipe:
    """Runs a command, after `verb` where one is given; its exit code, output and errors."""

    def run(*args: object) -> tuple[int, str, str]:
        code = cli.invoke([*verb, *(str(arg) for arg in args)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
