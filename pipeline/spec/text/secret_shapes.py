"""What credentials look like: names of keys, and shapes of tokens. Knows nothing of where they occur."""

import math
import re

_KEY = re.compile(
    r"(secret|passw(or)?d|passphrase|credential|api_?key|access_?key|private_?key|session_?key"
    r"|(^|_)auth(orization)?$|(^|_)(?<!^class_)token$)",  # a model's class token is none
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(AKIA|ASIA|AGPA|AROA)[A-Z0-9]{12,}"  # AWS key ids
    r"|\b(aws_secret_access_key|aws_session_token|secret_?key|password|passwd)\s*[=:]"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\bxox[abprs]-[\w-]{10,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+|\bBearer\s+\S{8,}"
    r"|(?<=[a-z0-9+])://[^/\s@:]*:[^/\s@]*@",  # user:password@host
    re.IGNORECASE,
)
_OPAQUE = re.compile(r"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")


def secret_key(name: str) -> bool:
    """Whether a key's name announces a credential, or is one."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_")
    return bool(_KEY.search(words)) or secret_text(name)


def secret_text(text: str) -> bool:
    """Whether a text holds something shaped like a credential."""
    return bool(_VALUE.search(text)) or any(_random(match.group()) for match in _OPAQUE.finditer(text))


def _random(text: str) -> bool:
    """Whether 40 characters are as mixed as an AWS secret; paths, words and hexadecimal digests are not."""
    mixed = any(c.isupper() for c in text) and any(c.islower() for c in text) and any(c.isdigit() for c in text)
    entropy = -sum((n := text.count(c) / len(text)) * math.log2(n) for c in set(text))
    return mixed and not text.startswith("/") and entropy > 4.4
