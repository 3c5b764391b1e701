"""Parts of one file of the Hub by HTTP ranges, its address looked up once. Knows no repository.

The Hub answers with the signed address of a file elsewhere, which holds for an hour, and counts how often it is asked;
a file that is read in a thousand parts asks once in a while.
"""

import time
from collections import OrderedDict

import httpx2
from huggingface_hub import get_session
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # documented

from vitpipe.infra.storage.hub_errors import Unbelievable
from vitpipe.infra.storage.store import replaced

KEPT_S = 600.0
"""Seconds for which a signed address is used again."""
KEPT = 1024
"""Addresses that a process keeps."""
_signed: OrderedDict[str, tuple[str, float]] = OrderedDict()


def get_range(address: str, start: int, length: int | None, commit: str) -> bytes:
    """Get `length` bytes from `start`, fewer only where the file ends. Unbelievable when the answer is not that."""
    whole = start == 0 and length is None
    wanted = {} if whole else {"Range": f"bytes={start}-" + (str(start + length - 1) if length is not None else "")}
    answer = _answer(address, {**wanted, "Accept-Encoding": "identity"}, commit)
    if answer.status_code == 416:  # begins at or after the end
        return b""
    hf_raise_for_status(answer)
    return answer.content if whole else _checked(answer, start, length)


def _answer(address: str, headers: dict[str, str], commit: str) -> httpx2.Response:
    signed, until = _signed.get(address, ("", 0.0))
    if signed and time.monotonic() < until:
        answer = get_session().get(signed, headers=headers)  # without the token, which is the Hub's alone
        if answer.status_code not in (401, 403, 404, 410):
            return answer
    _signed.pop(address, None)
    answer = get_session().get(address, headers={**build_hf_headers(), **headers})
    first = answer.history[0] if answer.history else answer  # the Hub's own
    if first.headers.get("x-repo-commit", commit) != commit:
        raise replaced(f"read {address}")
    if answer.history and answer.is_success:
        _signed[address] = str(answer.url), time.monotonic() + KEPT_S
        while len(_signed) > KEPT:
            _signed.popitem(last=False)
    return answer


def _checked(answer: httpx2.Response, start: int, length: int | None) -> bytes:
    data, said = answer.content, answer.headers.get("content-range", "")
    if answer.status_code == 200:  # a server without ranges gives the whole
        return data[start:] if length is None else data[start : start + length]
    span, _, total = said.removeprefix("bytes ").partition("/")
    if answer.status_code != 206 or not total.isdigit():
        raise Unbelievable("the answer to a ranged read does not say its range")
    wanted = int(total) - start if length is None else min(length, int(total) - start)
    if span != f"{start}-{start + wanted - 1}" or len(data) != wanted:
        raise Unbelievable(f"bytes {span} came, {len(data)} of them, where {wanted} from {start} were asked for")
    return data
