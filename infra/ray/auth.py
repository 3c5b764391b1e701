"""Ray's token: made when missing, kept private, and demanded by whatever cluster we give work to."""

import contextlib
import http.client
import json
import os
import secrets
import urllib.error
import urllib.request
from pathlib import Path

from vitpipe.infra import logs
from vitpipe.infra.errors import StorageError

PROBE_S = 10.0
_CHECK = "check the address, and that the cluster is up"
_DASHBOARD = "give the address of the dashboard, usually port 8265 of the head"


def token_path() -> Path:
    """Where Ray looks, in its own order after `RAY_AUTH_TOKEN`."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()


def token() -> str | None:
    """Read the token of this user, or None."""
    if value := os.environ.get("RAY_AUTH_TOKEN"):
        return value
    path = token_path()
    return path.read_text().strip() if path.exists() else None


def ensure_token() -> None:
    """Make a token unless there is one, readable by this user alone (one that Ray makes would be readable by all)."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = token_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # ours from an earlier run, or a run beside us was faster
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    path.chmod(0o600)
    logs.hide(path.read_text().strip())


def require_answer(address: str) -> None:
    """Return if a Ray answers at `host:port`. StorageError within seconds: Ray itself would try for two minutes."""
    import grpc  # comes with Ray; only a cluster's address needs it

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PROBE_S)
        except grpc.FutureTimeoutError:
            found = f"no Ray answered within {PROBE_S:g} s"
            do = f"{_CHECK}; the port is that of its GCS, usually 6379, not the dashboard's"
            raise StorageError(f"connect to Ray at {address}", found, do) from None


def refuse_open(dashboard: str) -> None:
    """Raise StorageError unless the cluster's dashboard turns away a request without a token.

    Whoever can submit a job owns the cluster; one that asks nobody for a token belongs to everybody.
    """
    request = urllib.request.Request(f"{dashboard.rstrip('/')}/api/jobs/")
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PROBE_S) as answer:
            status, open_to_all = answer.status, _is_list(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return
        status, open_to_all = error.code, False
    except http.client.HTTPException as error:
        found = f"what answers there does not speak HTTP ({type(error).__name__}); that may be the port of Ray's GCS"
        raise StorageError(f"reach the Ray dashboard at {dashboard}", found, _DASHBOARD) from error
    except OSError as error:
        raise StorageError(f"reach the Ray dashboard at {dashboard}", f"no answer: {error}", _CHECK) from error
    if not open_to_all:
        found = f"it answered {status} where Ray's dashboard lists jobs or asks for a token"
        raise StorageError(f"reach the Ray dashboard at {dashboard}", found, _DASHBOARD)
    found = "it listed its jobs to a request without a token: anyone may run code on it"
    raise StorageError(f"use the Ray cluster at {dashboard}", found, "start every node with RAY_AUTH_MODE=token")


def _is_list(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), list)
    except ValueError:
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None
