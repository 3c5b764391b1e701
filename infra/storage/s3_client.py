"""The S3 client of a process, made from the AWS standard places. Knows no object and no bucket."""

import os
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from vitpipe.infra.errors import StorageError
from vitpipe.infra.retry import RetryPolicy
from vitpipe.infra.storage.s3_ranges import RangedClient

_CONNECTIONS = 64
_PART_TRIES = 8
"""Tries of one part of a large upload; the pauses between are botocore's, each up to 20 s."""

_looked: tuple[dict[bytes, bytes], frozenset[tuple[str, str]]] = {}, frozenset()
"""The environment as it was looked through last, and what was found."""


def client(parts: bool = False) -> Any:
    """Return the S3 client for this process and its present settings; with `parts`, one that retries calls by itself.

    Credentials, region, endpoint and checksum behaviour come from the AWS standard places only. It is made at first
    use, so that a store can be pickled, and anew after a fork or when the environment changes.
    """
    return _client(_settings(), os.getpid(), parts)[0]


def ranged_client() -> RangedClient:
    """Return the same client for what is read, which asks for ranges the short way."""
    return _client(_settings(), os.getpid(), False)[1]


def _settings() -> frozenset[tuple[str, str]]:
    """Return what of the environment decides, looked through only where it changed: there is a call for each range."""
    global _looked
    now = vars(os.environ)["_data"]  # to compare the mapping itself takes as long as to sign a request
    before, found = _looked
    if now != before:
        found = frozenset(
            (name, value)
            for name, value in os.environ.items()
            if name.startswith(("AWS_", "VITPIPE_STORAGE_")) or name.lower().endswith("_proxy")
        )
        _looked = now.copy(), found
    return found


@lru_cache(maxsize=8)
def _client(settings: frozenset[tuple[str, str]], pid: int, parts: bool) -> tuple[Any, RangedClient]:
    config = Config(
        connect_timeout=5,
        read_timeout=RetryPolicy.from_environment().stall_s,
        retries={"mode": "standard", "total_max_attempts": _PART_TRIES if parts else 1},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
    )
    try:
        session = boto3.session.Session()
        s3 = session.client("s3", config=config)
        return s3, RangedClient(s3, session.get_credentials())
    except BotoCoreError:
        raise  # explained with the call that needed it
    except ValueError as error:
        raise StorageError("reach S3", str(error), "correct AWS_ENDPOINT_URL: http(s)://host:port") from error
