"""Every message of the tree, rendered with placeholders, reads as a sentence: what cannot be done, what was found."""

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from vitpipe.infra import errors
from vitpipe.infra.errors import Stopped, UsageError, VitpipeError
from vitpipe.infra.logs import redact

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("infra", "pipeline", "stages", "vitpipe")
NAMES = ("table", "Table")
"""What is filled in: names, which no message may change."""
NO_VERBS = {"a", "an", "the", "no", "not", "there", "it", "its", "doctor", "error", "in"}
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VitpipeError)}
PHRASE = "read it"
"""Stands for what is wholly computed elsewhere: a part, or the beginning of one that a caller gives."""
PARTS = {"asked", "what", "verb", "found", "do"}
Words = Mapping[str, list[str]]


def _texts(node: ast.expr, name: str, known: Words, whole: bool = True) -> list[str]:
    """List the texts that an expression may have, with `name` for what is filled in; `known` are names of texts."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [text for one in (node.body, node.orelse) for text in _texts(one, name, known, whole)]
    if isinstance(node, ast.FormattedValue):
        inner = node.value
        if isinstance(inner, ast.Name) and inner.id not in known and inner.id in PARTS:
            return [PHRASE]
        plain = isinstance(inner, ast.IfExp | ast.Name) and node.conversion == -1
        return _texts(inner, name, known, whole=False) if plain else [name]
    if isinstance(node, ast.JoinedStr):
        pieces = [_texts(part, name, known, whole=False) for part in node.values]
        return ["".join(chosen) for chosen in itertools.product(*pieces)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        halves = (_texts(half, name, known, whole) for half in (node.left, node.right))
        return ["".join(chosen) for chosen in itertools.product(*halves)]
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    return [PHRASE if whole else name]


def _assigned(scope: ast.AST, name: str, known: Words) -> dict[str, list[str]]:
    """Find the names that a scope gives to texts, all of a name's together."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(scope):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for one, value in pairs:
                if isinstance(one, ast.Name) and isinstance(value, ast.Constant | ast.JoinedStr | ast.IfExp):
                    found.setdefault(one.id, []).extend(_texts(value, name, known))
    return found


def _is_message(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS):
        return False
    return bool(node.args) and not any(isinstance(arg, ast.Starred) for arg in node.args)


def messages(source: str, name: str) -> Iterator[tuple[int, VitpipeError]]:
    """Each construction of an error in this source, in each of its wordings, by its line."""
    tree = ast.parse(source)
    constants = _assigned(ast.Module([one for one in tree.body if isinstance(one, ast.Assign)], []), name, {})
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)] or [tree]
    seen: set[int] = set()
    for scope in reversed(scopes):  # the innermost function first
        calls = [node for node in ast.walk(scope) if _is_message(node) and id(node) not in seen]
        known = constants | _assigned(scope, name, constants) if calls else {}
        for node in calls:
            seen.add(id(node))
            kind, keys = KINDS[node.func.id], [word.arg for word in node.keywords if word.arg]
            values = [*node.args, *(word.value for word in node.keywords if word.arg)]
            for chosen in itertools.product(*(_texts(value, name, known) for value in values)):
                given = dict(zip(keys, chosen[len(node.args) :], strict=True))
                yield node.lineno, kind(*chosen[: len(node.args)], **given)


def faults(error: VitpipeError, name: str) -> list[str]:
    """What does not read in it."""
    text, parts = str(error), (error.asked, error.found, error.do)
    rules = {
        "asked begins with no verb": not re.match(r"[A-Za-z]+\b", error.asked)
        or error.asked.startswith(name)
        or error.asked.split()[0].lower() in NO_VERBS,
        "it has no opening": not re.match(r"(Cannot|Stopped before it could) [a-z]+\b", text),
        "it has no end": text[-1] not in ".!?",
        "it has two marks": bool(re.search(r"[.:;,] ?[:;,]|[^.\d]\.\.(?!\.)| \.(?= |$)|  ", text)),
        "a name is changed": text.count(name) != sum(part.count(name) for part in parts),
        "a sentence begins small": bool(re.search(r"[a-z]{3}\. [a-z]+ ", text)),
        "found begins as a sentence": bool(re.match(r"(There|It|No|The|A|An|This|Not) ", error.found)),
        "a backtick is alone": text.count("`") % 2 == 1,
        "it is taken for a secret": redact(text) != text,
    }
    return [rule for rule, broken in rules.items() if broken]


@pytest.mark.parametrize("name", NAMES)
def test_every_message_of_the_tree_reads_as_a_sentence(name: str) -> None:
    found, seen = [], set()
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py") if not path.is_symlink()):
        source = path.read_text(encoding="utf-8")
        for line, error in messages(source, name) if any(kind in source for kind in KINDS) else ():
            seen.add((path, line))
            found += [f"{path.relative_to(ROOT)}:{line}: {fault}: {error}" for fault in faults(error, name)]
    assert len(seen) > 300
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("UsageError('the folder is not there')", "asked begins with no verb"),
        ("UsageError('doctor', 'not ok')", "asked begins with no verb"),
        ("UsageError(f'{name} is read')", "asked begins with no verb"),
        ("UsageError('read x:', 'y, : z')", "it has two marks"),
        ("UsageError('read x', 'y', 'do this..')", "it has two marks"),
        ("UsageError('read x', 'the field `y')", "a backtick is alone"),
        ("UsageError('read x', 'y', f'{name} is its name')", "a name is changed"),
        ("def f():\n do = f'{name} is its name'\n raise UsageError('read x', 'y', do)", "a name is changed"),
        ("DO = 'the field `y'\nUsageError('read x', 'y', 'mend it' if y else DO)", "a backtick is alone"),
        ("UsageError('read x', 'There is no such folder')", "found begins as a sentence"),
        ("UsageError('read x', 'it is no folder. it is a file')", "a sentence begins small"),
        ("StorageError('read x', f'no usable AWS credentials: {error} and so on')", "it is taken for a secret"),
    ],
)
def test_a_message_that_does_not_read_is_found(source: str, fault: str) -> None:
    assert any(fault in faults(error, "table") for _, error in messages(source, "table"))


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
    assert str(Stopped("run x", "SIGTERM came")) == "Stopped before it could run x: SIGTERM came."
