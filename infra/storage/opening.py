"""From a URI to a store. The only place that knows which schemes there are."""

import os
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.hub_names import hub_place, is_hub
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.names import BUCKET, checked
from vitpipe.infra.storage.store import Store


def open_store(uri: str) -> Store:
    """Open `file:///abs`, `file://./relative` (to the current folder, absolute from then on) or `s3://bucket/prefix`.

    Nothing is contacted or created yet. UsageError for any other form. `hf://owner/name` opens a repository of the
    Hugging Face Hub, which is only read; the Hub is asked for the commit of a revision that is none.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "file" and rest.strip("/ "):
        if "\0" in rest:
            raise _bad(uri, "it has a NUL character")
        return LocalStore(Path(os.path.abspath(os.path.expanduser(rest))))
    if separator and scheme == "s3":
        # boto3 takes a third of a second to import: only where S3 is used
        from vitpipe.infra.storage.s3 import S3Store

        bucket, _, prefix = rest.rstrip("/").partition("/")
        if "@" in bucket or ":" in bucket:
            raise _bad("s3://...", "a bucket's name has no `:` or `@`; credentials come from the AWS standard places")
        if not BUCKET.fullmatch(bucket):
            raise _bad(uri, f"{bucket!r} is not a bucket's name")
        return S3Store(bucket, checked(prefix) if prefix else "")
    if separator and scheme == "hf":
        # huggingface_hub takes half a second to import: only where the Hub is meant
        from vitpipe.infra.storage.hub import open_hub

        return open_hub(uri)
    raise _bad(uri, "it is neither file:// nor s3://")


def split_uri(uri: str) -> tuple[str, str]:
    """Split an `s3://` or `hf://` URI into its bucket, or its repository at a revision, and the path or pattern within.

    ValueError for no place on the Hub.
    """
    if is_hub(uri):
        place = hub_place(uri)
        return place.root, place.path
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    return f"s3://{bucket}", path


def _bad(uri: str, why: str) -> UsageError:
    return UsageError(f"open the store {uri!r}", why, "write file://./folder, file:///folder or s3://bucket/prefix")
