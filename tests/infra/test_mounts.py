"""What file system a folder is on, from mountinfo as kernels write it, and what a run should know of it."""

import os
from pathlib import Path

import pytest

from vitpipe.infra.storage.mounts import MOUNTINFO, Mount, mount_of, remarks

LINES = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:40 / /home rw,nosuid shared:20 - nfs4 head:/home rw,vers=4.2,acregmin=5,acregmax=5,acdirmin=5,acdirmax=5,hard
41 22 0:41 / /old rw - nfs head:/old rw,vers=3,nolock,local_lock=all
42 22 0:42 / /scratch rw,flock - lustre 10.0.0.1@tcp:/scratch rw,checksum,flock
43 42 0:43 / /scratch/local\040disk rw - lustre 10.0.0.1@tcp:/other rw,localflock
44 22 0:44 / /none rw - lustre 10.0.0.1@tcp:/none rw,lazystatfs
45 22 0:45 / /ssh rw - fuse.sshfs me@there:/ rw,user_id=0
46 22 0:46 / /over rw - ext4 /dev/vdb rw
47 22 0:47 / /over rw - nfs4 head:/over rw,noac
half a line
48 22 0:48 / /odd rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    (tmp_path / "mountinfo").write_text(LINES)
    return tmp_path / "mountinfo"


@pytest.mark.parametrize(
    ("folder", "kind", "said"),
    [
        ("/var/runs", "ext4", []),
        ("/home/me/runs", "nfs4", []),
        ("/old/runs", "nfs", ["nolock: ", "acregmax 60 s, acdirmax 60 s: "]),
        ("/scratch/runs", "lustre", []),
        ("/scratch/local disk/a/b", "lustre", ["localflock: "]),
        ("/none", "lustre", ["no flock: "]),
        ("/ssh/x", "fuse.sshfs", ["FUSE (fuse.sshfs): "]),
        ("/over/x", "nfs4", []),
        ("/odd", "ext4", []),
    ],
)
def test_the_mount_that_covers_a_folder_and_its_options(mountinfo, folder, kind, said):
    mount = mount_of(Path(folder), mountinfo)
    assert mount is not None and mount.kind == kind
    found = list(remarks(mount))
    assert len(found) == len(said) and all(one.startswith(name) for one, name in zip(found, said, strict=True))


def test_locks_of_one_machine_and_long_caches_are_named():
    mount = Mount(Path("/x"), "nfs", frozenset({"local_lock=flock", "actimeo=30"}))
    assert [one.partition(":")[0] for one in remarks(mount)] == ["local_lock", "acregmax 30 s, acdirmax 30 s"]
    assert not list(remarks(Mount(Path("/x"), "nfs", frozenset({"actimeo=3"}))))


def test_this_machine_tells_where_a_folder_is(tmp_path):
    mount = mount_of(tmp_path / "not" / "there")
    assert mount is not None and os.path.ismount(mount.point) and MOUNTINFO.exists()
    assert mount_of(tmp_path, tmp_path / "nowhere") is None
