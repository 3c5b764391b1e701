"""What S3's errors mean: which ones pass by themselves, and what a person should do about the others.

Knows botocore's exceptions; calls nothing.
"""

import time
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from vitpipe.infra.errors import NotFound, Refused, StorageError, VitpipeError
from vitpipe.infra.storage.store import replaced


class Doubtful(Exception):
    """An answer that cannot be believed: too short, too slow, or without what every true answer has."""


_NETWORK = (boto.ConnectionError, boto.HTTPClientError, ResponseParserError, HTTPError, Doubtful)
ERRORS = (boto.ClientError, boto.BotoCoreError, ResponseParserError, HTTPError, Doubtful)
"""Everything a call to S3 may raise."""

_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_PASSING_CODES = {
    "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException",
    "TooManyRequests", "RequestLimitExceeded", "OperationAborted", "ConditionalRequestConflict",
    "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",
}  # fmt: skip
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
)
_WHERE = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this machine a role"
_REFUSED = {
    "InvalidAccessKeyId": "the access key is not known there: check AWS_ACCESS_KEY_ID or AWS_PROFILE, and the endpoint",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    "ExpiredToken": "the credentials have expired: renew them, then run the same command again",
    "RequestTimeTooSkewed": "set this machine's clock (NTP), then run the same command again",
    "RequestExpired": "set this machine's clock (NTP), then run the same command again",
    "AuthorizationHeaderMalformed": "check AWS_DEFAULT_REGION: the bucket lies in another region",
}
_CLOCK_OFF_S = 14 * 60
"""S3 refuses what was signed 15 minutes before or after its own time; a `Date` is a little older."""


def code_of(error: BaseException) -> str:
    """Return S3's word for the error (`NoSuchKey`), the HTTP status where the answer had no body, else nothing."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, boto.ClientError) else ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an answer that is an error; 0 when none came."""
    if not isinstance(error, boto.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def dated_s(answer: Any) -> float | None:
    """Return the server's time in an answer, an error's too, in seconds of the epoch; None where it has no date."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() + 0.5  # of whole seconds, the middle
    except (KeyError, ValueError, TypeError):
        return None


def passes(error: BaseException) -> bool:
    """Whether the same call may well succeed in a moment."""
    if isinstance(error, boto.ClientError):
        return code_of(error) in _PASSING_CODES or status_of(error) in _PASSING_STATUS
    return isinstance(error, _NETWORK) and not isinstance(error, boto.SSLError)


def in_brief(error: BaseException) -> str:
    """Describe the error in few words, without botocore's own."""
    if isinstance(error, boto.ClientError):
        message = error.response.get("Error", {}).get("Message")
        return f"{status_of(error)} {code_of(error)}" + (f": {message}" if message else "")
    return f"{error}"


def explained(error: Exception, asked: str, bucket: str, bucket_wanted: bool = False) -> VitpipeError:
    """Turn it into an error of ours, with what to do. With `bucket_wanted`, a 404 means the bucket."""
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket" or (bucket_wanted and status == 404):
        do = "create it, or correct the store's URI or AWS_ENDPOINT_URL"
        return StorageError(asked, f"there is no bucket {bucket!r} there", do)
    if status == 404:
        return NotFound(asked, "no object of that name")
    if status == 412:
        return replaced(asked)
    if status in (401, 403) or code in _REFUSED:
        return _refused(error, asked)
    if isinstance(error, _CREDENTIALS):
        return Refused(asked, f"no usable AWS credentials ({error})", _WHERE)
    if isinstance(error, boto.SSLError):
        dated = "not yet valid" in str(error) or "has expired" in str(error)
        remedy = "look at this machine's clock, then at" if dated else "set AWS_CA_BUNDLE to"
        return StorageError(asked, f"no trusted connection: {error}", f"{remedy} the server's authority")
    if passes(error):
        do = "check the network and AWS_ENDPOINT_URL; the same command goes on where it ended"
        return StorageError(asked, f"no answer to rely on, the last try ended with {in_brief(error)}", do)
    return StorageError(asked, f"S3 answered {in_brief(error)}", "`vitpipe doctor` checks the store step by step")


def _refused(error: Exception, asked: str) -> Refused:
    """Blame this machine's clock where it is off: every signature is wrong then, and a HEAD's answer has no body."""
    code, status = code_of(error), status_of(error)
    found = f"S3 refused it: {status} {code if code != str(status) else ''}".rstrip()
    remedy = _REFUSED.get(code, "check the credentials, and that they may do this there (`vitpipe doctor`)")
    server_s = dated_s(error.response) if isinstance(error, boto.ClientError) else None
    ahead_s = 0.0 if server_s is None else time.time() - server_s
    if abs(ahead_s) > _CLOCK_OFF_S:
        found = f"this machine's clock is {_spoken(ahead_s)} the server's; {found}"
        remedy = _REFUSED["RequestTimeTooSkewed"]
    return Refused(asked, found, remedy)


def _spoken(ahead_s: float) -> str:
    """`20 minutes ahead of` or `3 days behind`."""
    size = abs(ahead_s)
    unit, seconds = next((pair for pair in (("days", 86400), ("hours", 3600)) if size >= 2 * pair[1]), ("minutes", 60))
    return f"{size / seconds:.0f} {unit} {'ahead of' if ahead_s > 0 else 'behind'}"
