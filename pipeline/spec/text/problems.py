"""What is wrong with a text, each problem with its place, so that all are reported at once. Knows no YAML, no stage."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.text.secret_shapes import secret_text


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a file, or an override typed on the command line (line 0)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in a spec, and where it is written."""

    mark: Mark
    path: str
    """Where in the spec, e.g. `nodes.backbone.config.optimizer`; empty for the whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.path}: {self.text}" if self.path else f"{self.mark}: {self.text}"


class SpecError(UsageError):
    """A spec that cannot run, with everything that is wrong in it."""

    def __init__(self, asked: str, problems: tuple[Problem, ...]) -> None:
        lines = [str(problem) for problem in problems]
        listed = "\n".join([f"{len(lines)} problems:", *(f"  {line}" for line in lines)])
        super().__init__(asked, lines[0] if len(lines) == 1 else listed)
        self.problems = problems

    def __str__(self) -> str:
        return f"Cannot {self.asked}: {self.found}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.asked, self.problems)

    def to_json(self) -> dict[str, Any]:
        """The error as `--json` prints it, with a list of all problems."""
        places = [
            {"file": p.mark.file, "line": p.mark.line, "column": p.mark.column, "path": p.path, "text": p.text}
            for p in self.problems
        ]
        return {**super().to_json(), "problems": places}


@dataclass
class Problems:
    """Collects problems while one text is read."""

    asked: str
    found: list[Problem] = field(default_factory=list)

    def add(self, mark: Mark, path: str, text: str) -> None:
        """Note a problem and go on."""
        self.found.append(Problem(mark, path, text))

    def error(self) -> SpecError:
        """Make one error of all of them, each once, in the order of the text."""
        return SpecError(self.asked, tuple(sorted(set(self.found))))

    def stop(self) -> None:
        """Raise what was found so far, if anything was: reading on would only repeat it in other words."""
        if self.found:
            raise self.error()


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is unknown, with the nearest of the known names and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = f" (known: {', '.join(names)})" if names else ""
    return f"unknown {what} {shown(name)}{hint}{listed}"


def shown(value: object, limit: int = 60) -> str:
    """Show a value in a message: cut when long, withheld when it looks like a credential."""
    if secret_text(str(value)):
        return "(not shown)"
    text = repr(value) if isinstance(value, str) or value is None else str(value)
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
