"""Which disk is full, where an error names one and where it does not."""

import errno
import tempfile
from pathlib import Path

import pytest
from small_disk import small_disk

from vitpipe.infra.full_disk import full_path, is_full
from vitpipe.pipeline.drive.node_run import as_vitpipe_error


def caused(cause: BaseException) -> Exception:
    error = RuntimeError("it could not be done")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (caused(OSError(errno.ENOSPC, "No space left on device")), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EIO, "wrote 'No space left on device' elsewhere"), False),
        (ValueError("28"), False),
    ],
)
def test_a_full_disk_is_known(error: Exception, full: bool) -> None:
    assert is_full(error) is full


def test_the_path_is_the_one_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bare = OSError(errno.ENOSPC, "No space left on device")
    with small_disk(tmp_path / "full", "4m") as full, small_disk(tmp_path / "roomy", "8m") as roomy:
        full.fill()
        named = OSError(errno.ENOSPC, "No space left on device", "/data/x")
        assert full_path(named, full.path) == "/data/x" and full_path(caused(named), full.path) == "/data/x"
        below = full.path / "not" / "there" / "yet"
        assert full_path(bare, roomy.path, below) == str(below)
        monkeypatch.setenv("TMPDIR", str(full.path))
        assert full_path(bare, roomy.path) == str(full.path), "the temporary folder needs no mention"
        assert str(full.path) in str(as_vitpipe_error(bare, "backbone", "the log"))
        assert str(Path.cwd()) not in str(as_vitpipe_error(bare, "backbone", "the log"))
        full.make_room()
        assert str(roomy.path) in full_path(bare, roomy.path), "room was made meanwhile: any of them"
