"""Find what looks like a credential in a spec, and never repeat it."""

from collections.abc import Mapping

from vitpipe.pipeline.spec.text.problems import Problems
from vitpipe.pipeline.spec.text.secret_shapes import secret_key, secret_text
from vitpipe.pipeline.spec.text.yaml_source import Value

_ADVICE = "credentials come from the AWS standard places (environment, profile, role), never from YAML"


def scan(value: Value, path: str, problems: Problems) -> None:
    """Report every key and value that looks like a credential; the report names places, not contents."""
    if isinstance(value.data, Mapping):
        for number, (name, part) in enumerate(value.data.items(), start=1):
            if secret_text(name):
                problems.add(part.at, path, f"key number {number} looks like a credential (not shown); {_ADVICE}")
                continue
            inside = f"{path}.{name}" if path else name
            if secret_key(name):
                problems.add(part.at, inside, f"this key looks like a credential (value not shown); {_ADVICE}")
            else:
                scan(part, inside, problems)
    elif isinstance(value.data, tuple):
        for index, part in enumerate(value.data):
            scan(part, f"{path}[{index}]", problems)
    elif isinstance(value.data, str) and secret_text(value.data):
        problems.add(value.at, path, f"this value looks like a credential (not shown); {_ADVICE}")
