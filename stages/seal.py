"""JSON as it is written: canonical where it is hashed, readable where people look, sealed where others rest on it.

A seal is the SHA-256 of a small file's own canonical content, in the file itself as `sha256`: whoever reads it can tell
a changed bit without asking anyone. Knows nothing of what is sealed.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"


def canonical(content: Mapping[str, Any], *, allow_nan: bool = True) -> bytes:
    """Encode JSON as it is hashed: sorted keys, no spaces, ASCII. ValueError for NaN and infinities unless `allow_nan`.

    A diverged loss in a record is NaN; nothing in a config is.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan).encode()


def seal_of(content: Mapping[str, Any]) -> str:
    """Compute the seal of this content; one that is in it already does not count."""
    return hashlib.sha256(canonical({key: value for key, value in content.items() if key != SEAL})).hexdigest()


def readable(content: Mapping[str, Any]) -> bytes:
    """The bytes of a small file that people look into: sorted keys, a line each."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def sealed(content: Mapping[str, Any]) -> bytes:
    """The bytes of a file that holds this content and its seal, always the same ones."""
    return json.dumps({**content, SEAL: seal_of(content)}, indent=1).encode()


def broken(data: bytes, fields: Mapping[str, Any]) -> str | None:
    """Say how a file that `sealed` wrote has changed since; None while it is the same. `fields` are what it holds."""
    if fields.get(SEAL) != seal_of(fields):
        return "its content and its seal do not agree"
    return None if data == sealed(fields) else "its bytes were changed after it was sealed"
