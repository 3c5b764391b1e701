"""What is wrong with a command line as it was typed: what was asked, what was found, and whose help says more."""

from typing import Any

import typer
from pydantic import ValidationError

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.text.problems import shown


def mistyped(error: typer.TyperException, verb: str) -> UsageError:
    """Turn typer's error into ours: `cannot take 'nan' for --max-hours: it should be a number from 0 to 1,000`.

    `verb` is whose help it names where typer does not say it.
    """
    path = getattr(getattr(error, "ctx", None), "command_path", f"vitpipe {verb}".removesuffix(" vitpipe"))
    do = f"see `{path} --help`"
    param, cause = getattr(error, "param", None), error.__cause__
    if param is not None and isinstance(cause, ValidationError):
        first = cause.errors(include_url=False)[0]
        name = param.opts[0] if param.param_type_name == "option" else param.name
        wanted = _range(param) or first["msg"].replace("Input should be", "it should be")
        return UsageError(f"take {shown(first['input'])} for {name}", wanted, do)
    said = getattr(error, "format_message", error.__str__)()
    return UsageError(f"read the command line of `{path}`", said[:1].lower() + said[1:], do)


def _range(param: Any) -> str:
    """Say which numbers an option takes; empty where it takes none."""
    kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if kind not in (int, float):
        return ""
    number = "a whole number" if kind is int else "a number"
    if param.min is None and param.max is None:
        return f"it should be {number}"
    if param.max is None:
        return f"it should be {number} of at least {param.min:g}"
    return f"it should be {number} from {param.min:,.10g} to {param.max:,.10g}"
