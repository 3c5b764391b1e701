"""Ranges of objects for a third of the client's CPU time: a short way beside botocore's long one, over its connections.

How botocore itself asks for an object of a bucket is learnt from its first answered request: where it was sent, in
which region it was signed. From then on ranges are asked for and signed here. Whatever else comes back than bytes or a
plain error, botocore asks again and decides. Knows no retries.
"""

import hmac
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, cast
from urllib.parse import quote, urlsplit

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError
from botocore.parsers import create_parser

from vitpipe.infra.storage.s3_errors import passes

_ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"http": ":80", "https": ":443"}
_PLAIN = {404, 412, 416}
"""Statuses that mean the same however it was asked."""


@dataclass(frozen=True)
class BucketRoute:
    """How botocore asked for an object of a bucket and was answered."""

    base: str
    """URL up to the key."""
    host: str
    region: str
    payload: str
    """What it said of the empty body."""
    agent: str

    @classmethod
    def of(cls, request: Any, key: str, access_key: str) -> "BucketRoute | None":
        """Read it from a request that was sent; None where it was signed otherwise or with other credentials."""
        said = {name.lower(): _text(value) for name, value in request.headers.items()}
        scheme, _, credential = said.get("authorization", "").partition(" Credential=")
        signer, _, scope = credential.partition(",")[0].partition("/")
        day_region_service = scope.split("/")
        quoted = quote(key, safe="/~")
        ours = scheme == _ALGORITHM and signer == access_key and day_region_service[2:] == ["s3", "aws4_request"]
        if not ours or not request.url.endswith("/" + quoted) or "?" in request.url:
            return None
        where = urlsplit(request.url)
        host = where.netloc.lower().removesuffix(_PORTS[where.scheme])
        base = request.url.removesuffix(quoted)
        return cls(base, host, day_region_service[1], said["x-amz-content-sha256"], said["user-agent"])

    def request(self, key: str, asked: dict[str, str], credentials: Any, now: datetime) -> AWSPreparedRequest:
        """Make the signed GET of an object; `asked` are further headers, by name in lower case."""
        url, stamp = self.base + quote(key, safe="/~"), now.strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self.host, **asked, "x-amz-content-sha256": self.payload, "x-amz-date": stamp}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        names = sorted(headers)
        lines, signed = "".join(f"{name}:{headers[name]}\n" for name in names), ";".join(names)
        path = url[url.index("/", url.index("://") + 3) :]
        canonical = f"GET\n{path}\n\n{lines}\n{signed}\n{self.payload}"
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(_signing_key(credentials.secret_key, scope), text.encode(), "sha256").hex()
        del headers["host"]  # the connection says it
        headers["user-agent"] = self.agent
        headers["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return AWSPreparedRequest("GET", url, cast(Any, headers), None, stream_output=True)


class RangedClient:
    """An S3 client of boto3 as far as `get_object`, that takes the short way where it is known. For many threads."""

    def __init__(self, s3: Any, credentials: Any) -> None:
        self.exceptions = s3.exceptions
        self._s3, self._credentials = s3, credentials
        self._http = getattr(getattr(s3, "_endpoint", None), "http_session", None)
        """Its connections, with all that is configured of proxies, authorities and patience; no public name has it."""
        self._routes: dict[str, BucketRoute | None] = {}
        self._seen = threading.local()
        s3.meta.events.register_last("before-send.s3.GetObject", self._see)

    def get_object(self, **query: str) -> Any:
        """Get an object, or with `Range` a part of it; `IfMatch` is heeded. Raises what boto3's client does."""
        bucket = query["Bucket"]
        route = self._routes.get(bucket) if "Range" in query else None
        answer = self._ask(route, query) if route else None
        if answer is None:
            answer = self._s3.get_object(**query)
            if route:  # refused where botocore is not: it is left to botocore from now on
                self._routes[bucket] = None
            elif bucket not in self._routes:
                self._routes[bucket] = self._learnt(query["Key"])
        return answer

    def _see(self, request: Any, **_: Any) -> None:
        self._seen.request = request

    def _learnt(self, key: str) -> BucketRoute | None:
        request = getattr(self._seen, "request", None)  # whoever else listens may have answered in botocore's place
        if self._http is None or self._credentials is None or request is None:
            return None
        return BucketRoute.of(request, key, self._credentials.get_frozen_credentials().access_key)

    def _ask(self, route: BucketRoute, query: dict[str, str]) -> dict[str, Any] | None:
        """What boto3 would answer; None where it is to be asked."""
        asked = {"range": query["Range"]} | ({"if-match": query["IfMatch"]} if "IfMatch" in query else {})
        credentials = self._credentials.get_frozen_credentials()  # renewed in time where they expire
        assert self._http is not None  # else there would be no route
        answer = self._http.send(route.request(query["Key"], asked, credentials, datetime.now(UTC)))
        if answer.status_code >= 300:
            error = _error(answer)
            if answer.status_code in _PLAIN or passes(error):
                raise error
            return None
        headers = answer.headers
        found = {"Body": answer.raw, "ETag": headers.get("ETag"), "ContentRange": headers.get("Content-Range", "")}
        if "Content-Length" in headers:
            found["ContentLength"] = headers["Content-Length"]
        return {name: value for name, value in found.items() if value is not None}


def _error(answer: Any) -> ClientError:
    """Understand an answer that is an error as botocore does."""
    said = {"body": answer.content, "headers": answer.headers, "status_code": answer.status_code}
    context = {"context": {"operation_name": "GetObject"}}
    return ClientError(create_parser("rest-xml").parse(said | context, cast(Any, None)), "GetObject")


@lru_cache(maxsize=8)
def _signing_key(secret: str, scope: str) -> bytes:
    """Derive the key of a day, a region and a service (AWS Signature Version 4)."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
