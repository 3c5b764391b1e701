"""The reader's extension is compiled where it can be, proved before it is trusted, and its lack is no failure."""

import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from tests.stages.images.jpegs import needs_extension
from vitpipe.stages.images import digests
from vitpipe.stages.images.native import compilation, prebuild
from vitpipe.stages.images.native.compilation import compiled_extension

needs_sha = pytest.mark.skipif(digests.sha256_extension() is None, reason="this CPU has no instructions for SHA-256")
needs_avx512 = pytest.mark.skipif(
    not {"avx512f", "avx512bw", "sha_ni"} <= set(Path("/proc/cpuinfo").read_text().split()),
    reason="sixteen at a time need AVX-512",
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(compilation, "_folder", lambda: tmp_path / "extensions")
    compilation._proved_here.cache_clear()
    return tmp_path / "extensions"


BUILT = compiled_extension()


def built_here(folder: Path) -> Path:
    """As if it had been built in that folder."""
    folder.mkdir()
    return shutil.copy(BUILT, folder / BUILT.name)


@needs_extension
def test_processes_may_build_at_once(folder):
    assert compiled_extension() is None
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: compilation.build(), range(2))
    assert first == second == compiled_extension()
    assert list(folder.iterdir()) == [first]


@needs_extension
def test_the_name_holds_what_the_cpu_can_and_another_cpu_proves_it_anew(folder, monkeypatch):
    built = built_here(folder)
    assert compiled_extension() == built and built.stem.endswith(f"-{compilation._features()}")
    proved = []
    monkeypatch.setattr(compilation, "_failed_proof", lambda path: proved.append(path))
    monkeypatch.setattr(compilation, "_features", lambda: "another")
    other = compiled_extension()
    assert other is not None and other.stem.endswith("-another") and other.samefile(built)
    assert compiled_extension() == compilation.build() == other and proved == [built], "proved once, compiled never"

    compilation._proved_here.cache_clear()
    monkeypatch.setattr(compilation, "_features", lambda: "a-third")
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=PermissionError))
    assert compiled_extension() == compiled_extension() == other and len(proved) == 2, "a folder that cannot be written"


@needs_extension
def test_one_that_another_cpu_could_run_and_this_one_cannot_is_not_taken(folder, monkeypatch, caplog):
    built = built_here(folder)
    elsewhere = built.with_name(built.name.replace(compilation._features(), "elsewhere"))
    built.unlink()
    source = folder / "unknown.c"
    source.write_text("__attribute__((constructor)) static void unknown(void) { __builtin_trap(); }")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", elsewhere], check=True)
    assert compiled_extension() is None
    assert "built on another kind of CPU" in caplog.text and f"ended with {-signal.SIGILL}" in caplog.text


def test_the_name_holds_every_instruction_that_the_sources_ask_for():
    asked = set()
    for path in compilation._HERE.glob("*.[ch]"):
        for names in re.findall(r'(?:cpu_supports|target|target_clones)\(("[^)]*")\)', path.read_text()):
            asked |= set(re.findall(r"[a-z0-9_]+", names)) - {"default"}
    assert {"avx2", "sha"} < asked
    of_kernel = {"sha": "sha_ni", "pclmul": "pclmulqdq"}
    assert {of_kernel.get(name, name) for name in asked} == set(compilation._INSTRUCTIONS)


@needs_extension
@pytest.mark.parametrize(
    ("file", "sound", "broken"),
    [
        ("huffman.c", "0,  1,  8,  16, 9", "0,  8,  1,  16, 9"),
        ("part.c", "? right + mcu_w :", "? right :"),
        ("segments.c", "part->left - first * wide", "part->left"),
        ("sharpen.c", "THIRTEENTH = 5042", "THIRTEENTH = 4681"),
        ("huffman.c", "info->entropy->decode_mcu = decode_mcu", "info->entropy = 0"),
        ("tables.c", "table->made && !memcmp", "table->made || !memcmp"),
        pytest.param("tables.c", "if (!set->images)", "if (1)", marks=needs_sha),
        pytest.param("sha256.c", "+ LENGTH > BLOCK", "> BLOCK", marks=needs_sha),
        pytest.param("sha256_pair.c", "if (from[0] == from[1])", "if (1)", marks=needs_sha),
        pytest.param("sha256_wide.c", "6, 11, 25", "6, 11, 24", marks=needs_avx512),
        pytest.param("contents.c", "slot->rows + message->body_size", "slot->rows", marks=needs_sha),
    ],
)
def test_one_that_decodes_otherwise_or_crashes_is_not_kept(folder, tmp_path, monkeypatch, file, sound, broken):
    sources = shutil.copytree(compilation._HERE, tmp_path / "sources")
    text = (sources / file).read_text()
    assert text.count(sound) == 1
    (sources / file).write_text(text.replace(sound, broken))
    monkeypatch.setattr(compilation, "_HERE", sources)
    compilation._digest.cache_clear()
    try:
        with pytest.raises(compilation.NotBuilt, match="its proof ended with"):
            compilation.build()
    finally:
        compilation._digest.cache_clear()
    assert list(folder.iterdir()) == []


def test_without_headers_set_up_goes_on_and_says_what_to_install(folder, tmp_path, monkeypatch, caplog):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'fatal error: jpeglib.h: No such file or directory' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    prebuild.main()
    assert "No such file" in caplog.text and compilation.PACKAGE in caplog.text
    assert compiled_extension() is None and list(folder.iterdir()) == []
    monkeypatch.setenv("PATH", "/nowhere")
    prebuild.main()
    assert "no C compiler" in caplog.text
