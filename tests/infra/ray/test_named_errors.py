"""What goes wrong with storage on one machine names that machine, whoever raises it in the end."""

import errno
import pickle
import socket

import pytest

from vitpipe.infra.errors import IntegrityError, Refused, StorageError
from vitpipe.infra.ray import on_worker


def test_a_refusal_is_said_with_the_machine_that_met_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "delta")
    met = pickle.dumps(Refused("read s3://b/x", "S3 refused it: 403 AccessDenied", "check the credentials"))
    monkeypatch.setattr(socket, "gethostname", lambda: "alpha")
    with pytest.raises(Refused) as raised, on_worker.named_errors("run rank 0 of backbone"):
        raise pickle.loads(met)  # as all ranks raise what one of them met
    assert str(raised.value) == (
        "Cannot read s3://b/x: S3 refused it: 403 AccessDenied (on delta). Check the credentials."
    )


def test_a_full_disk_is_said_with_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "delta")
    monkeypatch.setattr(on_worker, "_session_folder", lambda: "/tmp/ray")  # this process is no worker
    with pytest.raises(StorageError, match=r"disk is full at /scratch/x.*\(on delta\)"), on_worker.named_errors("save"):
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/x")


def test_what_is_no_machines_fault_names_none() -> None:
    with pytest.raises(IntegrityError) as raised, on_worker.named_errors("read"):
        raise IntegrityError("read x", "another digest", "restore it")
    assert "(on " not in str(raised.value)
