"""Whether an official file is what its authors publish: by any digest that somebody vouches for. No torch."""

import gzip
import hashlib
import zlib
from pathlib import Path

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.ingest.benchmarks.registry import Benchmark, OfficialFile


def check_digests(path: Path, file: OfficialFile, benchmark: Benchmark) -> None:
    """IntegrityError unless the file has one of its official digests, where there are any."""
    if not file.digests:
        return
    size = path.stat().st_size
    packed_anew = [digest for digest in file.digests if digest.startswith("content-")]
    if file.bytes is not None and size != file.bytes and not packed_anew:
        problem = f"it has {size} bytes, officially {file.bytes} with {' or '.join(file.digests)}"
        raise _altered(path, benchmark, problem)
    kinds = sorted({digest.partition(":")[0] for digest in file.digests} - {"content-sha256"})
    found = {f"{kind}:{_digest(path, kind)}" for kind in kinds}
    if not found & set(file.digests) and packed_anew:
        found.add(f"content-sha256:{_content_sha256(path)}")
    if not found & set(file.digests):
        problem = f"it has {' and '.join(sorted(found))}, official is {' or '.join(file.digests)}"
        raise _altered(path, benchmark, problem)


def _altered(path: Path, benchmark: Benchmark, found: str) -> IntegrityError:
    do = f"it is damaged or another version: {benchmark.obtain}"
    return IntegrityError(f"ingest {benchmark.title} from {path}", found, do)


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _content_sha256(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error):
        return "(no gzip file)"
