"""The pages of the reference, made from the code: fields, benchmarks, commands, metrics, exit codes, library.

Prose belongs into the other pages. Whatever is wrong here is wrong in the schema, the registry, the command line's
help or a docstring, and is mended there.
"""

import functools
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main

import vitpipe
from vitpipe.infra import errors, metrics
from vitpipe.pipeline.cli.main import app
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.pipeline.spec.schema import REFERENCE, json_schema
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY

Schema = dict[str, Any]
WIDTH = 84
"""Characters of a line of the commands' help, as many as a page has room for."""


def write(folder: Path) -> None:
    """Write each page into `folder` as Markdown, leaving those that already say the same; others there are removed."""
    folder.mkdir(exist_ok=True)
    pages = {
        "yaml.md": yaml_page(),
        **{f"{name}.md": stage_page(name) for name in CATALOG},
        "benchmarks.md": benchmarks_page(),
        "commands.md": commands_page(),
        "metrics.md": metrics_page(),
        "exit-codes.md": exit_codes_page(),
        "library.md": library_page(),
    }
    for stale in {path.name for path in folder.glob("*.md")} - pages.keys():
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a Markdown table; bars and line ends inside of cells are made harmless."""
    lines = [columns, ["---"] * len(columns), *rows]
    cells = (" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in lines)
    return "\n".join(f"| {line} |" for line in cells)


# ---- fields ----


@functools.cache
def definitions() -> Schema:
    """The schema's named parts."""
    parts: Schema = json_schema()["$defs"]
    return parts


def yaml_page() -> str:
    """List the fields of the whole file, and the parts of a node."""
    schema = json_schema()
    top = {**schema, "required": ["version", "name", "store", "nodes"]}
    node = (
        "Each of `nodes` has a `stage`, which decides what its `needs`, `config` and `resources` take; and `foreach`."
    )
    stages = table(("stage", "gives"), [(f"[{name}]({name}.md)", stage.output) for name, stage in CATALOG.items()])
    return "\n\n".join(("# The YAML", _fields(top), node, stages)) + "\n"


def stage_page(name: str) -> str:
    """List the inputs, the config and the resources of a stage, with those settings that they hold."""
    schema, stage = definitions(), CATALOG[name]
    inputs = [
        (f"`{key}`", need.kind + (", or several" if need.many else ""), "required" if need.required else "")
        for key, need in stage.inputs.items()
    ]
    parts = [f"# {name}", f"Gives a {stage.output}."]
    if inputs:
        parts += ["## needs", table(("input", "takes", ""), inputs)]
    done: set[str] = set()
    for section, cls in (("config", stage.config_class()), ("resources", stage.resources_class())):
        parts += [f"## {section}", _fields(schema[cls.__name__])]
        for inner in _within(schema, cls.__name__, done):
            parts += [f"### {_title(schema[inner], inner)}", _opening(schema[inner]), _fields(schema[inner])]
    return "\n\n".join(filter(None, parts)) + "\n"


def _within(schema: Schema, name: str, done: set[str]) -> Iterator[str]:
    """Give the names of the settings below `name` once each, in the order in which its fields name them."""
    for field in schema[name].get("properties", {}).values():
        for inner in _names(field):
            if inner not in done:
                done.add(inner)
                yield inner
                yield from _within(schema, inner, done)


def _names(field: object) -> Iterator[str]:
    if isinstance(field, dict):
        if "$ref" in field:
            yield field["$ref"].rpartition("/")[2]
        for value in field.values():
            yield from _names(value)
    elif isinstance(field, list):
        for value in field:
            yield from _names(value)


def _title(definition: Schema, name: str) -> str:
    kind = definition["properties"].get("kind", {})
    return f"kind: {kind['const']}" if "const" in kind else name


def _opening(definition: Schema) -> str:
    return " ".join(definition.get("description", "").split("\n\n")[0].split())


def _fields(definition: Schema) -> str:
    required = definition.get("required", [])
    rows = [
        (f"`{name}`", _type(field), "required" if name in required else _default(field), field.get("description", ""))
        for name, field in definition.get("properties", {}).items()
    ]
    return table(("field", "type", "default", "meaning"), rows) if rows else "No fields."


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "its own"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(field: Schema) -> str:
    """Say in a few words what the field takes; the reference form `${...}`, which any field takes, is left out."""
    if "$ref" in field:
        return _linked(field["$ref"].rpartition("/")[2])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            kinds = [_type(part) for part in field[key] if part != REFERENCE]
            return " or ".join(dict.fromkeys(kinds))
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if isinstance(field.get("items"), dict) else "list"
    if isinstance(field.get("additionalProperties"), dict):
        return f"mapping to {_type(field['additionalProperties'])}"
    return _bounded(field)


def _linked(name: str) -> str:
    title = _title(definitions()[name], name)
    return f"[{name}](#{title.lower().replace(':', '').replace(' ', '-')})"


def _bounded(field: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_number(field[key])}" for key, sign in signs.items() if key in field]
    return ", ".join([str(field.get("type", "any")), *bounds]).replace("null", "none")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value < 1e9 else f"{value:g}"


# ---- the rest ----


def benchmarks_page() -> str:
    """List the data sets that can be ingested by name, with what is to be done to have their files."""
    rows = [
        (
            f"`{one.name}`", one.title, _gigabytes(sum(file.bytes or 0 for file in (*one.files, *one.archives))),
            one.how_to_obtain, one.unverified, one.licence, one.home,
        )
        for one in REGISTRY.values()
    ]  # fmt: skip
    intro = "`source: {kind: benchmark, name: NAME, root: FOLDER}` takes each of these from its official files."
    columns = ("name", "data set", "size", "how to get the files below the root", "unverified", "licence", "home")
    return f"# Benchmarks\n\n{intro}\n\n{table(columns, rows)}\n"


def _gigabytes(size: int) -> str:
    return next((f"{size / unit:.3g} {name}" for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), "?")


def commands_page() -> str:
    """Show the help of each command, as the command line prints it."""
    parts = ["# Commands"]
    for words, command in _commands(typer.main.get_command(app), ("vitpipe",)):
        shown = typer.Context(command, info_name=" ".join(words), terminal_width=WIDTH, max_content_width=WIDTH)
        parts.append(f"## {' '.join(words)}\n\n```text\n{command.get_help(shown)}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*words, name))


def metrics_page() -> str:
    """List the Prometheus metrics with their kind and meaning."""
    rows = [(f"`{metrics.PREFIX}{one.name}`", one.kind, one.help) for one in metrics.KNOWN.values()]
    labels = ", ".join(f"`{label}`" for label in metrics.LABELS)
    return f"# Metrics\n\nLabels: {labels}.\n\n{table(('metric', 'kind', 'meaning'), rows)}\n"


def exit_codes_page() -> str:
    """List the exit codes from the classes of errors."""
    kinds = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.VitpipeError)]
    meaning = {one.code: inspect.getdoc(one) or "" for one in kinds if "code" in vars(one)}
    meaning[errors.VitpipeError.code] = "A bug in vitpipe."
    rows = [("0", "Done."), *((str(code), meaning[code]) for code in sorted(meaning))]
    gravity = ", ".join(map(str, errors.GRAVITY))
    several = f"With several failures the gravest decides, in this order: {gravity}."
    return f"# Exit codes\n\n{table(('code', 'meaning'), rows)}\n\n{several}\n"


def library_page() -> str:
    """List the names that `import vitpipe` promises; autodoc puts their signatures and docstrings there."""
    parts = [
        "# Library",
        "`import vitpipe` gives these names, imported when they are first used. No other is promised.",
    ]
    for name in vitpipe.__all__:
        if inspect.isclass(one := getattr(vitpipe, name)):
            members = "" if issubclass(one, Exception) else "\n   :members:"
            parts.append(f"```{{eval-rst}}\n.. autoclass:: vitpipe.{name}{members}\n```")
        elif callable(one):
            parts.append(f"```{{eval-rst}}\n.. autofunction:: vitpipe.{name}\n```")
    return "\n\n".join(parts) + "\n"
