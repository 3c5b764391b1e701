"""How places on the Hugging Face Hub are written: `hf://[datasets/]owner/name[@revision][/path]`. Asks the Hub nothing.

As huggingface_hub's own file system writes them. A place in an ingest source is a data set unless it says `models/`.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal, Self
from urllib.parse import quote, unquote

SCHEME = "hf://"
Kind = Literal["model", "dataset"]

_PREFIXES: dict[str, Kind] = {"datasets": "dataset", "models": "model"}
_OTHERS = ("spaces", "buckets", "kernels")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REFS = r"refs/(?:pr/\d+|convert/[^/@]+)"
"""Revisions with slashes that need not be escaped; of any other `/` is written `%2F`."""
_PLACE = re.compile(
    rf"(?:(?P<prefix>datasets|models)/)?(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>{_REFS}|[^/@]+))?(?:/(?P<path>.*))?",
    re.DOTALL,
)
_REVISION = re.compile(rf"(hf://(?:(?:datasets|models)/)?{_NAME}/{_NAME})@(?:{_REFS}|[^/@,\s]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubPlace:
    """A repository at a revision, and a path in it, which may be a pattern."""

    kind: Kind
    repo: str
    """`owner/name`."""
    revision: str = "main"
    """Branch, tag or commit."""
    path: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether the revision is a commit, whose files never change."""
        return bool(_COMMIT.fullmatch(self.revision))

    @property
    def root(self) -> str:
        """URI of the repository at its revision."""
        plural = "datasets/" if self.kind == "dataset" else "models/"
        revision = self.revision if re.fullmatch(_REFS, self.revision) else quote(self.revision, safe="")
        return f"{SCHEME}{plural}{self.repo}@{revision}"

    @property
    def uri(self) -> str:
        """The whole place, in its one form."""
        return f"{self.root}/{self.path}" if self.path else self.root

    def at(self, commit: str) -> Self:
        """The same place at a commit."""
        return replace(self, revision=commit)


def is_hub(text: str) -> bool:
    """Whether a place is one on the Hub."""
    return text.startswith(SCHEME)


def hub_place(text: str, kind: Kind = "model") -> HubPlace:
    """Take a place apart; `kind` is meant where it does not say. ValueError in words for what is none."""
    match = _PLACE.fullmatch(text.removeprefix(SCHEME))
    first, _, rest = text.removeprefix(SCHEME).partition("/")
    if match is None or first in _OTHERS or (first in _PREFIXES and match["prefix"] is None):
        ends = f"; {first} are not read" if first in _OTHERS else ""
        ends = "; its owner or its name is missing" if first in _PREFIXES or not rest else ends
        raise ValueError(f"{text!r} is not hf://owner/name[@revision][/path], or hf://datasets/owner/name...{ends}")
    parts = (match["path"] or "").strip("/").split("/")
    if any(part in (".", "..") for part in parts) or ("" in parts and len(parts) > 1):
        raise ValueError(f"{text!r} has an empty, `.` or `..` part in its path")
    revision = unquote(match["revision"]) if match["revision"] else "main"
    return HubPlace(_PREFIXES.get(match["prefix"] or "", kind), match["repo"], revision, "/".join(parts))


def data_place(text: str) -> str:
    """Say of a place in an ingest source that it is a data set, where it says nothing itself; others stay."""
    return hub_place(text, "dataset").uri if is_hub(text) else text


def data_place_or_none(text: str | None) -> str | None:
    """Do so for a field that may be left out."""
    return text and data_place(text)


def without_revisions(text: str) -> str:
    """Leave the revisions out of all places on the Hub in a text: where a recipe looks, not what it took there."""
    return _REVISION.sub(r"\1", text)
