"""Where stores and source data are: their URIs and paths are made absolute, once, where the command is typed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from vitpipe.infra.storage.hub_names import is_hub
from vitpipe.infra.storage.names import BUCKET
from vitpipe.stages.settings import Place, Settings


def absolute_uri(uri: str, folder: Path) -> str:
    """Bring a `file://` or `s3://` URI into its one absolute form. ValueError, without the URI in it, for any other."""
    scheme, separator, rest = uri.partition("://")
    if "\0" in uri:
        raise ValueError("it has a NUL character")
    if separator and scheme == "file" and rest.strip("/ "):
        return "file://" + os.path.abspath(folder / _at_home(rest))
    if separator and scheme == "s3":
        bucket, _, prefix = rest.rstrip("/").partition("/")
        if not BUCKET.fullmatch(bucket):
            raise ValueError("s3:// must be followed by a bucket's name, then a prefix; nothing else belongs there")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise ValueError("the prefix has an empty, `.` or `..` part")
        return f"s3://{bucket}/{prefix}".rstrip("/")
    if is_hub(uri):
        raise ValueError("the Hub holds no runs: name it as the `source` of an ingest or a convert node, or push to it")
    raise ValueError("it is not file://./folder, file:///folder or s3://bucket/prefix")


def is_local(place: str) -> bool:
    """Whether a place is a folder of this machine rather than an address."""
    return "://" not in place or place.startswith("file://")


def absolute_place(place: str, folder: Path) -> str:
    """Make a local folder or file of source data an absolute path; addresses stay."""
    return place if "://" in place or not place else os.path.abspath(folder / _at_home(place))


def _at_home(place: str) -> str:
    """Expand `~` and `~user`; where there is no such user the text stays."""
    try:
        return os.path.expanduser(place)
    except ValueError:  # what follows the `~` can be nobody's name
        return place


def place_paths(settings: type[Settings]) -> dict[tuple[str, ...], Place]:
    """Find the fields that are marked as places, by their path, whichever alternative of a union they are in."""
    found: dict[tuple[str, ...], Place] = {}
    for name, field in settings.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Place)]
        found |= {(field.alias or name,): marks[0]} if marks else {}
        for inner in models_in(field):
            found |= {(field.alias or name, *path): mark for path, mark in place_paths(inner).items()}
    return found


def places_in(text: str, mark: Place) -> list[str]:
    """Split a text into the places that it names; none for a word that says something else."""
    if text in mark.words:
        return []
    return text.split(mark.separator) if mark.separator else [text]


def models_in(field: FieldInfo | Any) -> Iterator[type[Settings]]:
    """Yield the Settings classes that a field's type may hold, inside unions, lists and annotations too."""
    annotation = field.annotation if isinstance(field, FieldInfo) else field
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
