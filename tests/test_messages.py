"""Every message of the tree, rendered with placeholders, reads as a sentence: what cannot be done, what was found."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitpipe.infra import errors
from vitpipe.infra.errors import Stopped, UsageError, VitpipeError

ROOT = Path(__file__).resolve().parents[1]
GAP = "nosuch.yaml"
"""Stands for what is filled in: a name, which no message may change."""
NO_VERBS = {"a", "an", "the", "no", "not", "there", "it", "its", "doctor", "error", "in"}
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VitpipeError)}


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return GAP


def messages(source: str) -> Iterator[tuple[int, VitpipeError]]:
    """Each construction of an error in this source, by its line."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS):
            continue
        if node.args and not any(isinstance(arg, ast.Starred) for arg in node.args):
            given = {word.arg: _text(word.value) for word in node.keywords if word.arg}
            yield node.lineno, KINDS[node.func.id](*map(_text, node.args), **given)


def faults(error: VitpipeError) -> list[str]:
    """What does not read in it."""
    text = str(error)
    rules = {
        "asked begins with no verb": not re.match(rf"[A-Za-z]+\b|{GAP}", error.asked)
        or error.asked.split()[0].lower() in NO_VERBS,
        "it has no opening": not re.match(rf"(Cannot|Stopped when asked to) ([a-z]+\b|{GAP})", text),
        "it has no end": text[-1] not in ".!?",
        "it has two marks": bool(re.search(r"[.:;,] ?[:;,]|[^.]\.\.(?!\.)| \.(?= |$)|  ", text)),
        "a name has a capital": GAP.capitalize() in text,
        "a backtick is alone": text.count("`") % 2 == 1,
    }
    return [rule for rule, broken in rules.items() if broken]


def test_every_message_of_the_tree_reads_as_a_sentence() -> None:
    found, seen = [], 0
    for path in (path for room in ("infra", "pipeline", "stages", "vitpipe") for path in (ROOT / room).rglob("*.py")):
        for line, error in messages(path.read_text(encoding="utf-8")):
            seen += 1
            found += [f"{path.relative_to(ROOT)}:{line}: {fault}: {error}" for fault in faults(error)]
    assert seen > 200
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("UsageError('the folder is not there')", "asked begins with no verb"),
        ("UsageError('doctor', 'not ok')", "asked begins with no verb"),
        ("UsageError('read x:', 'y, : z')", "it has two marks"),
        ("UsageError('read x', 'y', 'do this..')", "it has two marks"),
        ("UsageError('read x', 'the field `y')", "a backtick is alone"),
        ("UsageError('read x', 'Nosuch.yaml is not there')", "a name has a capital"),
    ],
)
def test_a_message_that_does_not_read_is_found(source: str, fault: str) -> None:
    ((_, error),) = messages(source)
    assert fault in faults(error)


@pytest.mark.parametrize("asked", ["ingest the folder /x", "Ingest the folder /x", "ingest the folder /x."])
def test_both_ways_to_ask_read_alike(asked: str) -> None:
    error = UsageError(asked, "no such folder", "correct `root`")
    assert str(error) == "Cannot ingest the folder /x: no such folder. Correct `root`."
    assert error.in_brief == "cannot ingest the folder /x: no such folder"
    assert error.to_json() == {"code": 2, "asked": asked, "found": "no such folder", "do": "correct `root`"}


def test_what_is_left_out_leaves_no_mark() -> None:
    assert str(UsageError("write /x")) == "Cannot write /x."
    assert str(UsageError("write /x", do="see it")) == "Cannot write /x. See it."
    assert str(UsageError("show it", "table is not committed yet")) == "Cannot show it: table is not committed yet."
    assert str(Stopped("run x", "SIGTERM came")) == "Stopped when asked to run x: SIGTERM came."
