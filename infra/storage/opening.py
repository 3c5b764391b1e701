"""From a URI to a store. The only place that knows which schemes there are."""

import os
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.names import BUCKET, checked
from vitpipe.infra.storage.store import Store


def open_store(uri: str) -> Store:
    """Open `file:///abs`, `file://./relative` (to the current folder, absolute from then on) or `s3://bucket/prefix`.

    Nothing is contacted or created yet. UsageError for any other form.
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
    raise _bad(uri, "it is neither file:// nor s3://")


def _bad(uri: str, why: str) -> UsageError:
    return UsageError(f"open the store {uri!r}", why, "write file://./folder, file:///folder or s3://bucket/prefix")
