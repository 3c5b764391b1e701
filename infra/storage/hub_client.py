"""Calls to the Hugging Face Hub through huggingface_hub, repeated under a deadline as those to S3 are.

Token and endpoint are looked up where that library looks (HF_TOKEN, `hf auth login`, HF_ENDPOINT), at every call, and
are kept nowhere.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.retry import RetryPolicy, persist
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.hub_errors import ERRORS, explained, in_brief, passes, told_wait_s
from vitpipe.infra.storage.hub_names import HubPlace

T = TypeVar("T")
log = logging.getLogger(__name__)

_stall_s: ContextVar[float | None] = ContextVar("_stall_s", default=None)
"""Seconds without an answer that a call of ours bears; the library itself would wait for ever."""
LONGEST_WAIT_S, TURNS = 400.0, 12
"""Where the Hub limits how often one may ask: the longest wait that is borne (it counts by five minutes), and how many
of them, one after the other."""
PATIENT_S = 300.0
"""The same, where the server works before it answers: a commit of many files."""


def endpoint() -> str:
    """Return the address of the Hub that is meant: HF_ENDPOINT, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def ask(asked: str, call: Callable[[HfApi], T], patient: bool = False) -> T:
    """Call the Hub until it answers. Errors: those of `hub_errors.explained`."""
    patience = RetryPolicy.from_environment()

    def tried() -> T:
        if constants.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise OfflineModeIsEnabled
        with _in_time(PATIENT_S if patient else patience.stall_s):
            return call(HfApi(endpoint=endpoint()))

    def noticed(error: BaseException, tries: int) -> None:
        traffic.count("retries")
        log.warning("%s: try %d ended with %s; trying again", asked, tries, in_brief(error))

    for turn in range(TURNS):
        try:
            return persist(tried, passes=passes, patience=patience, noticed=noticed)
        except ERRORS as error:
            wait_s = told_wait_s(error)
            if wait_s is None or wait_s > LONGEST_WAIT_S or turn == TURNS - 1:
                raise explained(error, asked, endpoint()) from error
            log.warning("%s: the Hub lets nobody ask more often, and again in %.0f s; waiting", asked, wait_s)
            time.sleep(wait_s)
    raise AssertionError("the last turn answers or raises")


def commit_of(place: HubPlace) -> str:
    """Return the commit that the place's revision is now. UsageError for a repository or revision that is not there."""
    if place.is_fixed:
        return place.revision
    asked = f"look at {place.root}"
    try:
        found = ask(
            asked,
            lambda api: api.repo_info(place.repo, repo_type=place.kind, revision=place.revision, expand="sha").sha,
        )
    except NotFound as error:
        do = "correct owner and name, or HF_ENDPOINT"
        raise UsageError(asked, f"{endpoint()} has no such repository", do) from error
    if not found:
        raise UsageError(asked, "it has no commit yet", "put files into it first, or correct its name")
    return found


@contextmanager
def _in_time(stall_s: float) -> Iterator[None]:
    """Give each request of the block without a timeout this one; other users of the library's client keep theirs."""
    hooks = get_session().event_hooks
    if _limit not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _limit]}
    token = _stall_s.set(stall_s)
    try:
        yield
    finally:
        _stall_s.reset(token)


def _limit(request: httpx2.Request) -> None:
    stall_s = _stall_s.get()
    given = request.extensions.get("timeout", {})
    if stall_s is not None and not any(given.values()):
        request.extensions = {
            **request.extensions,
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), stall_s),
        }
