"""The reader's C extension: where it lies, what it lacks, and its compilation. Knows no image. No torch.

It is linked to the very libjpeg that Pillow uses, so that both decode to the same pixels; its name is a digest of the
sources and of that library, so that a new Pillow is never met by an old extension.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import _imaging

PACKAGE = "libjpeg62-turbo-dev"
"""Debian's package of the headers."""
DO = f"Debian: apt-get install gcc {PACKAGE}; then python -m stages.images.native.prebuild"

_SOURCES = ("contents.c", "decoder.c", "decoder.h", "huffman.c", "huffman.h", "jpeg.h", "mirror.c", "part.c",
            "segments.c", "sha256.c", "sha256.h", "sha256_pair.c", "sha256_wide.c", "tables.c", "tables.h",
            "tile.c")  # fmt: skip
_FLAGS = ("-std=gnu11", "-O3", "-Wall", "-Wextra", "-shared", "-fPIC")


class NotBuilt(Exception):
    """The extension cannot be compiled here, with the reason."""


def extension() -> Path | None:
    """The compiled extension, or None where it was not built for these sources and this libjpeg."""
    libjpeg = _libjpeg()
    path = None if libjpeg is None else _folder() / f"{_digest(libjpeg)}.so"
    return path if path is not None and path.exists() else None


def build() -> Path:
    """Compile it, if it is not there. NotBuilt with the compiler's words; processes may do it at once."""
    found, libjpeg, compiler = extension(), _libjpeg(), shutil.which("cc")
    if found is not None:
        return found
    if libjpeg is None or compiler is None:
        raise NotBuilt("Pillow has its libjpeg inside" if libjpeg is None else "no C compiler `cc`")
    target = _folder() / f"{_digest(libjpeg)}.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as made:
        sources = [str(_here() / name) for name in _SOURCES if name.endswith(".c")]
        output = Path(made) / "extension.so"
        command = [compiler, *_FLAGS, *sources, "-o", str(output), str(libjpeg), f"-Wl,-rpath,{libjpeg.parent}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotBuilt(next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-200:]))
        proof = [sys.executable, "-m", "stages.images.native.proof", str(output)]
        done = subprocess.run(proof, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotBuilt(f"its proof ended with {done.returncode}: {done.stderr.strip()[-200:]}")
        os.replace(output, target)
    return target


@cache
def _libjpeg() -> Path | None:
    """The libjpeg that Pillow's calls end in: that of its wheel, or the system's. None where it is no library."""
    try:
        function = ctypes.CDLL(_imaging.__file__).jpeg_std_error
    except AttributeError:
        return None
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        places, *_, path = line.split(maxsplit=5)
        start, end = (int(place, 16) for place in places.split("-"))
        if start <= address < end:
            return Path(path) if Path(path).exists() else None
    return None


def _here() -> Path:
    return Path(__file__).parent


def _folder() -> Path:
    """Beside the virtual environment, where set-up may write and every later process looks."""
    beside = Path(sys.prefix) / "vitpipe_extensions"
    if beside.exists() or os.access(sys.prefix, os.W_OK):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vitpipe_extensions"


@cache
def _digest(libjpeg: Path) -> str:
    digest = hashlib.sha256(" ".join((*_FLAGS, platform.machine(), str(libjpeg))).encode())
    for path in (libjpeg, *(_here() / name for name in _SOURCES)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]
