"""The reader's C extension: where it lies, what it lacks, and its compilation. Knows no image. No torch.

It is linked to the very libjpeg that Pillow uses, so that both decode to the same pixels. Its file name is a digest of
the sources and of that library, so that a new Pillow never meets an old extension, and the instructions of this CPU
that the code can use: it and libjpeg choose by them at run time, and different machines may share one home folder.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import _imaging

log = logging.getLogger(__name__)

PACKAGE = "libjpeg62-turbo-dev"
"""Debian's package of libjpeg's headers."""
DO = f"Debian: apt-get install gcc {PACKAGE}; then python -m vitpipe.stages.images.native.prebuild"

_SOURCES = (
    "boxes.c", "checksums.c", "checksums.h", "codes.c", "codes.h", "colours.c", "contents.c", "decoder.c",
    "decoder.h", "huffman.c", "huffman.h", "image.c", "inflate.c", "inflate.h", "jpeg.h", "mirror.c", "mix.c",
    "moves.c", "part.c", "places.c", "png.h", "png_chunks.c", "png_part.c", "resize.c", "resize.h", "segments.c",
    "sha256.c", "sha256.h", "sha256_pair.c", "sha256_wide.c", "sharpen.c", "shifts.c", "steps.c", "steps.h",
    "tables.c", "tables.h", "taps.c", "taps.h", "tile.c", "unfilter.c", "unfilter.h",
)  # fmt: skip
_INSTRUCTIONS = ("avx", "avx2", "avx512bw", "avx512f", "fma", "pclmulqdq", "sha_ni")
"""Instruction sets that the sources and libjpeg-turbo choose their code by, as the kernel names them."""
_HERE = Path(__file__).parent
_FLAGS = (
    "-std=gnu11", "-O3", "-Wall", "-Wextra", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared",
    "-fPIC",
)  # fmt: skip


class NotBuilt(Exception):
    """The extension cannot be compiled here; the text is the reason."""


def compiled_extension() -> Path | None:
    """Find the compiled extension; None where it was not built for these sources and this libjpeg.

    One that was built on another kind of CPU is proved here before it is used: once if the folder can be written, else
    once in each process.
    """
    libjpeg = _libjpeg()
    if libjpeg is None:
        return None
    target = _target(libjpeg)
    return target if target.exists() else _proved_here(target)


def build() -> Path:
    """Compile the extension if it is missing. NotBuilt with the compiler's message; processes may do it in parallel."""
    found, libjpeg, compiler = compiled_extension(), _libjpeg(), shutil.which("cc")
    if found is not None:
        return found
    if libjpeg is None or compiler is None:
        raise NotBuilt("Pillow has its libjpeg inside" if libjpeg is None else "no C compiler `cc`")
    target = _target(libjpeg)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as made:
        sources = [str(_HERE / name) for name in _SOURCES if name.endswith(".c")]
        output = Path(made) / "extension.so"
        command = [compiler, *_FLAGS, *sources, "-o", str(output), str(libjpeg), "-lm", f"-Wl,-rpath,{libjpeg.parent}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotBuilt(next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-200:]))
        if failed := _failed_proof(output):
            raise NotBuilt(failed)
        os.replace(output, target)
    return target


@cache
def _proved_here(target: Path) -> Path | None:
    """An extension of the same sources and libjpeg for another kind of CPU, if its proof holds on this one."""
    for other in sorted(target.parent.glob(f"{target.name.partition('-')[0]}-*.so")):
        if failed := _failed_proof(other):
            log.warning("%s was built on another kind of CPU and is not taken on this one: %s", other, failed)
            continue
        try:
            os.link(other, target)
        except FileExistsError:
            pass  # another process did the same
        except OSError:
            return other  # proved, but the folder cannot be written
        return target
    return None


def _failed_proof(extension: Path) -> str | None:
    """Say how the proof of an extension failed; None when it held. Run in a process of its own, for it may crash."""
    proof = [sys.executable, "-m", "vitpipe.stages.images.extension_proof", str(extension)]
    done = subprocess.run(proof, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[4])
    return f"its proof ended with {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else None


@cache
def _libjpeg() -> Path | None:
    """The libjpeg that Pillow calls: that of its wheel, or the system's. None where it is linked statically."""
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


def _folder() -> Path:
    """Inside the virtual environment, where set-up may write and every later process looks; else the user's cache."""
    folder = Path(sys.prefix) / "vitpipe_extensions"
    if folder.exists() or os.access(sys.prefix, os.W_OK):
        return folder
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vitpipe_extensions"


def _target(libjpeg: Path) -> Path:
    return _folder() / f"{_digest(libjpeg)}-{_features()}.so"


@cache
def _features() -> str:
    """The `_INSTRUCTIONS` that this CPU has."""
    with Path("/proc/cpuinfo").open() as file:  # one entry a core: the first is enough
        flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    return "-".join(name for name in _INSTRUCTIONS if name in flags) or "plain"


@cache
def _digest(libjpeg: Path) -> str:
    digest = hashlib.sha256(" ".join((*_FLAGS, platform.machine(), str(libjpeg))).encode())
    for path in (libjpeg, *(_HERE / name for name in _SOURCES)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]
