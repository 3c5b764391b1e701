"""What the Hub's errors mean: which ones pass by themselves, and what a person should do about the others.

Knows the exceptions of huggingface_hub and of its HTTP client; calls nothing.
"""

import httpx2
from huggingface_hub import get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # documented

from vitpipe.infra.errors import Changed, NotFound, StorageError, UsageError, VitpipeError

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOGIN = "set HF_TOKEN, or run `hf auth login`"


class Unbelievable(Exception):
    """An answer of the Hub that is too short, or is not about what was asked for."""


ERRORS = (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, HFValidationError, Unbelievable)
"""Everything that a call to the Hub may raise."""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an answer that is an error; 0 when none came."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else 0


def passes(error: BaseException) -> bool:
    """Whether the same call may well succeed in a moment."""
    if isinstance(error, HfHubHTTPError):
        return status_of(error) in _PASSING and told_wait_s(error) is None
    return isinstance(error, httpx2.TransportError | Unbelievable) and not _is_untrusted(error)


def _is_untrusted(error: BaseException) -> bool:
    return isinstance(error, httpx2.TransportError) and "CERTIFICATE" in str(error).upper()


def told_wait_s(error: BaseException) -> float | None:
    """Return the seconds after which the Hub says that it may be asked again, where it said so and no other way out."""
    if status_of(error) != 429 or not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    told = headers.get("retry-after", "") if limit is None or limit.remaining else str(limit.reset_in_seconds)
    return float(told) if told.isdigit() else None


def in_brief(error: BaseException) -> str:
    """Describe the error in few words: status and what the server says, without addresses and request ids."""
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or error.response.reason_phrase
        return f"{status_of(error)} {' '.join(str(said).split())}".strip()
    return " ".join(str(error).split()) or type(error).__name__


def explained(error: Exception, asked: str, endpoint: str) -> VitpipeError:
    """Turn it into an error of ours, with what to do."""
    status = status_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        do = "unset HF_HUB_OFFLINE, or name files on a disk"
        return StorageError(asked, "HF_HUB_OFFLINE is set, so that nothing is asked of the Hub", do)
    if isinstance(error, GatedRepoError):
        do = f"accept its conditions at {endpoint} with the account of your token, and {_LOGIN}"
        return StorageError(asked, f"its owner lets in whom he knows: {in_brief(error)}", do)
    if isinstance(error, RevisionNotFoundError):
        return UsageError(asked, "it has no such branch, tag or commit", "correct what follows the `@`")
    if isinstance(error, EntryNotFoundError):
        return NotFound(asked, "no file of that name at that commit")
    if isinstance(error, RepositoryNotFoundError) and (status == 404 or not get_token()):
        do = f"correct owner and name; one that is private is there only for a token that may read it: {_LOGIN}"
        return UsageError(asked, f"{endpoint} has no such repository", do)
    if status in (401, 403):
        found = f"the Hub refused {'the token' if get_token() else 'it, and no token is set'}: {in_brief(error)}"
        return StorageError(asked, found, f"check that the token is right and may do this: {_LOGIN}")
    if status == 404:
        return NotFound(asked, "there is nothing of that name")
    if status in (409, 412):
        return Changed(asked, f"somebody else changed it meanwhile: {in_brief(error)}", "run the same command again")
    if isinstance(error, HFValidationError):
        return UsageError(asked, in_brief(error), "correct owner and name")
    if _is_untrusted(error):
        do = "set SSL_CERT_FILE to the authority of the server's or the proxy's certificate"
        return StorageError(asked, f"no trusted connection to {endpoint}: {in_brief(error)}", do)
    if passes(error) or status == 429:
        do = "check the network and HF_ENDPOINT; the same command goes on where it ended"
        found = f"no answer to rely on from {endpoint}, the last try ended with {in_brief(error)}"
        return StorageError(asked, found, do)
    return StorageError(asked, f"{endpoint} answered {in_brief(error)}", "check HF_ENDPOINT and the network")
