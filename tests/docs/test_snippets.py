"""What the documentation tells people to type is what the program takes: YAML, commands, Python."""

import ast
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import jsonschema
import pytest
import typer.main
from markdown_pages import HISTORY, ROOT, Code, Page, pages
from typer.exceptions import TyperException

import vitpipe
from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli.main import app
from vitpipe.pipeline.plan.given_machines import cluster, gpu_kinds
from vitpipe.pipeline.spec.load import load
from vitpipe.pipeline.spec.schema import json_schema
from vitpipe.pipeline.spec.text.problems import Problems, SpecError
from vitpipe.pipeline.spec.text.yaml_source import parse, plain

CURRENT = [page for page in pages() if page.path.relative_to(ROOT).as_posix() not in HISTORY]
FREE = {"nodes", "needs", "foreach", "vars", "splits", "shares"}
"""Their keys are the user's."""
COMMANDS: Any = typer.main.get_command(app)


def _loose(schema: Any) -> Any:
    """The schema of a part: nothing has to be there, and what says no kind may be of any."""
    if isinstance(schema, dict):
        kept = {key: _loose(value) for key, value in schema.items() if key != "required" or not isinstance(value, list)}
        return {"anyOf" if key == "oneOf" else key: value for key, value in kept.items()}
    return [_loose(one) for one in schema] if isinstance(schema, list) else schema


PART = jsonschema.Draft202012Validator(_loose(json_schema()))


def _properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {}) if isinstance(schema.get("properties"), dict) else ()
        for value in schema.values():
            yield from _properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _properties(value)


FIELDS = {*_properties(json_schema())}
OPTIONS = {
    name
    for command in (*COMMANDS.commands.values(), *COMMANDS.commands["artifacts"].commands.values(), COMMANDS)
    for option in command.params
    for name in (*option.opts, *option.secondary_opts)
} | {"--help"}


def wrong_yaml(code: Code) -> str | None:
    """Say what is wrong with a block: a whole file as `validate` says it, some nodes by the schema.

    One that begins by naming an option of `plan` is what that takes.
    """
    if option := re.match(r"# --(gpus|cluster)-file", code.text):
        return _refused(gpu_kinds if option[1] == "gpus" else cluster, code.text)
    document = plain(parse(code.text, "x", Problems("read")))
    if "version" in document:
        try:
            load(code.text)
        except SpecError as error:
            return str(error)
        return None
    nodes = {"nodes": document} if all(isinstance(one, Mapping) for one in document.values()) else document
    whole = {"version": 1, "name": "x", "store": "file:///x", **(document if "nodes" in document else nodes)}
    return next((error.message for error in PART.iter_errors(whole)), None)


def _refused(read: Callable[[Path], Any], text: str) -> str | None:
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        try:
            read(Path(file.name))
        except UsageError as error:
            return str(error)
    return None


def wrong_field(code: Code) -> str | None:
    """Name a key that no field has, of words in code that read like YAML."""
    if not re.match(r"[a-z_]+: \S", code.text):
        return None
    text = re.sub(r"\.\.\.|…", "x", code.text)
    try:
        return next((key for key in _keys(plain(parse(text, "x", Problems("read")))) if key not in FIELDS), None)
    except SpecError:
        return None


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from () if key in FREE else _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def wrong_command(code: Code) -> str | None:
    """Say what the command line would refuse in the lines of a block, or in words, which may stop in the middle."""
    for line in code.text.splitlines():
        if (
            found := re.match(r"(?:.*[ /])?vitpipe(?: (?P<words>.*))?$", line)
            if code.language != "span"
            else re.match(r"vitpipe (?P<words>.+)", line)
        ):
            words = shlex.split(found["words"] or "", comments=True)
            command, rest = _named(words)
            if hasattr(command, "commands") and rest and not rest[0].startswith("-") and not rest[0].isupper():
                return f"no command {rest[0]}"
            known = {name for option in command.params for name in option.opts} | {"--help"}
            if strange := next((one for one in rest if one.startswith("-") and one not in known), None):
                return f"{command.name} has no {strange}"
            if code.language != "span" and not hasattr(command, "commands") and "--help" not in rest:
                try:
                    command.make_context(command.name, rest)
                except TyperException as error:
                    return str(error)
    return None


def _named(words: list[str]) -> tuple[Any, list[str]]:
    command = COMMANDS
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def wrong_option(code: Code) -> str | None:
    """Name an option alone that no command has."""
    name = re.match(r"--[a-z][a-z-]*", code.text)
    return name[0] if name and name[0] not in OPTIONS else None


def wrong_target(code: Code) -> str | None:
    """Name a target that the Makefile has not."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return next((one for one in re.findall(r"^make ([a-z-]+)", code.text, re.MULTILINE) if one not in targets), None)


def wrong_python(code: Code) -> str | None:
    """Say what does not parse, is no name of the library, or no argument of it. Nothing is imported (torch)."""
    for node in ast.walk(ast.parse(code.text)):
        match node:
            case ast.Attribute(value=ast.Name(id="vitpipe"), attr=name) if name not in vitpipe.__all__:
                return f"no vitpipe.{name}"
            case ast.Call(func=ast.Attribute(ast.Name("vitpipe"), name), keywords=given) if name in vitpipe.__all__:
                takes = _arguments(_definitions(vitpipe._HOMES[name])[name])
                if strange := [one.arg for one in given if one.arg and takes is not None and one.arg not in takes]:
                    return f"vitpipe.{name} takes no {strange[0]}"
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("vitpipe."):
                if lacks := [one.name for one in names if one.name not in _definitions(module)]:
                    return f"{module} has no {lacks[0]}"
            case _:
                pass
    return None


def _definitions(module: str) -> dict[str, ast.stmt]:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _arguments(node: ast.stmt) -> set[str] | None:
    """The names that a function, or the class of a dataclass, takes; None for any."""
    if isinstance(node, ast.FunctionDef):
        taken = {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}
        return None if node.args.kwarg else taken
    assert isinstance(node, ast.ClassDef)
    return {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}


RULES: tuple[tuple[str, Callable[[Code], str | None]], ...] = (
    ("yaml", wrong_yaml), ("span", wrong_field), ("", wrong_command), ("bash", wrong_command), ("span", wrong_command),
    ("span", wrong_option), ("", wrong_target), ("span", wrong_target), ("python", wrong_python),
)  # fmt: skip


def told(page: Page) -> Iterator[str]:
    """All that is wrong on a page."""
    for code in (*page.blocks(), *page.spans()):
        for language, rule in RULES:
            if language == code.language and (found := rule(code)):
                yield f"{page.path.name}:{code.line}: {found}"


def test_what_pages_say_is_what_the_program_takes():
    kinds = {code.language for page in CURRENT for code in page.blocks()}
    assert kinds >= {"yaml", "", "bash", "python"}
    assert [one for page in CURRENT for one in told(page)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```yaml\nversion: 1\nname: x\nstore: file:///x\nnodes: {a: {stage: ingest}}\n```", "source"),
        ("```yaml\nshards:\n  stage: ingest\n  config: {sauce: {kind: folder}}\n```", "sauce"),
        ("```yaml\nnodes:\n  a: {stage: ingests}\n```", "ingests"),
        ("```yaml\nrebuse: all\n```", "rebuse"),
        ("```yaml\n# --cluster-file: mine\ncores_a_machine: 64\n```", "cores_a_machine"),
        ("```yaml\n# --gpus-file: mine\nH100: {price: 2}\n```", "price"),
        ("Say `deduplicate: {near: {haming: 4}}`.", "haming"),
        ("```\nvitpipe rum my.yaml\n```", "no command rum"),
        ("```\nvitpipe plan my.yaml --replace x   # no such option there\n```", "plan has no --replace"),
        ("```bash\nsrun .venv/bin/vitpipe run\n```", "spec"),
        ("Type `vitpipe artifacts fetch RUN`.", "no command fetch"),
        ("With `--verify-source` it is read.", "--verify-source"),
        ("Then `make nowhere`.", "nowhere"),
        ('```python\nimport vitpipe\n\nvitpipe.loud("x")\n```', "no vitpipe.loud"),
        ('```python\nimport vitpipe\n\nvitpipe.load("x", speed=5)\n```', "speed"),
        ("```python\nfrom vitpipe.infra.errors import NotHere\n```", "has no NotHere"),
    ],
)
def test_a_wrong_snippet_is_seen(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    (found,) = told(Page(path))
    assert said in found
