"""A real S3 server for tests: Ceph's RADOS Gateway over one in-memory OSD, on loopback, ended by pid.

Fixtures: `s3_server` (one a session) and `s3_uri` (an empty prefix, with the AWS environment set to reach it).
Without the programs, tests that ask for it are skipped; VITPIPE_REQUIRE_SERVICES=1 turns the skip into a failure.
"""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "setpriv")
MORTAL = ("setpriv", "--pdeathsig", "KILL")  # a killed pytest leaves no server behind
BUCKET = "vitpipe-tests"
START_S = 90

CONFIG = """
[global]
fsid = {fsid}
monmap = {folder}/monmap
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
paxos propose interval = 0.02
paxos min wait = 0.01
mon tick interval = 1
# it ends where less than 5 % of the disk is free, of which it needs a few MB
mon data avail crit = 0
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
run dir = {folder}/run
admin socket = {folder}/run/$name.$pid.asok
log file = {folder}/log/$name.log
mon client hunt interval = 0.3
crash dir = {folder}/log
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
"""


@dataclass
class S3Server:
    """One running server. `environment` is what a process needs to reach it, and nothing of the user's own."""

    folder: Path
    port: int
    access_key: str = "test-access"
    secret_key: str = "canary-test-secret"
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def start(self) -> None:
        for name in ("mon", "osd", "run", "log", "rgw"):
            (self.folder / name).mkdir(parents=True)
        conf, fsid = self.folder / "ceph.conf", str(uuid.uuid4())
        mon_port = free_port()
        conf.write_text(CONFIG.format(fsid=fsid, mon_port=mon_port, port=self.port, folder=self.folder))
        monmap = self.folder / "monmap"
        self._once("monmaptool", "--create", "--clobber", "--addv", "a", f"[v1:127.0.0.1:{mon_port}]",
                   "--fsid", fsid, monmap)  # fmt: skip
        self._once("ceph-mon", "-c", conf, "--mkfs", "-i", "a", "--monmap", monmap)
        self._keep(*MORTAL, "ceph-mon", "-c", conf, "-i", "a", "-f")
        mon_log = self.folder / "log" / "mon.a.log"
        # before its first map the monitor answers, and refuses the OSD for a wrong fsid
        self._until("the monitor", lambda: mon_log.is_file() and b"osdmap e1" in mon_log.read_bytes())
        self._once("ceph-osd", "-c", conf, "-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
        self._keep(*MORTAL, "ceph-osd", "-c", conf, "-i", "0", "-f")
        self._keep(*MORTAL, "radosgw", "-c", conf, "-n", "client.rgw", "-f")
        self._until("the gateway", lambda: answers(self.endpoint))
        self._once("radosgw-admin", "-c", conf, "-n", "client.rgw", "user", "create", "--uid=test",
                   "--display-name=test", f"--access-key={self.access_key}", f"--secret-key={self.secret_key}",
                   "--max-buckets=1000")  # fmt: skip
        self.client().create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        """End the processes, last started first. All they hold is in memory, so nothing is gained by asking."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def client(self):
        """A plain boto3 client, for tests to look at or damage what the store holds."""
        return boto3.session.Session().client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=self.access_key, region_name="us-east-1",
            aws_secret_access_key=self.secret_key, config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip

    def user(self, name: str, *policies: str) -> dict[str, str]:
        """A further user who may do what the policies (JSON) say and no more; the environment to be them."""
        admin = ("radosgw-admin", "-c", self.folder / "ceph.conf", "-n", "client.rgw")
        keys = f"{name}-access", f"{name}-secret"
        self._once(*admin, "caps", "add", "--uid=test", "--caps=user-policy=*")
        self._once(*admin, "user", "create", f"--uid={name}", f"--display-name={name}",
                   f"--access-key={keys[0]}", f"--secret-key={keys[1]}")  # fmt: skip
        self._allow(name, policies)
        return {**self.environment, "AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}

    def revoke(self, name: str) -> None:
        """Take a user's key away: each of its requests is refused from now on."""
        self._once("radosgw-admin", "-c", self.folder / "ceph.conf", "-n", "client.rgw", "key", "rm", f"--uid={name}",
                   "--key-type=s3", f"--access-key={name}-access")  # fmt: skip

    def renew(self, name: str, *policies: str) -> dict[str, str]:
        """Give a user another key, which takes the policies away (Ceph 16) that are therefore given too; as `user`."""
        keys = f"{name}-access-2", f"{name}-secret-2"
        self._once("radosgw-admin", "-c", self.folder / "ceph.conf", "-n", "client.rgw", "key", "create",
                   f"--uid={name}", "--key-type=s3", f"--access-key={keys[0]}", f"--secret-key={keys[1]}")  # fmt: skip
        self._allow(name, policies)
        return {**self.environment, "AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}

    def _allow(self, name: str, policies: Sequence[str]) -> None:
        for number, policy in enumerate(policies):
            self._iam().put_user_policy(UserName=name, PolicyName=f"policy-{number}", PolicyDocument=policy)

    def _iam(self):
        return boto3.session.Session().client(
            "iam", endpoint_url=self.endpoint, aws_access_key_id=self.access_key, region_name="us-east-1",
            aws_secret_access_key=self.secret_key,
        )  # fmt: skip

    def _once(self, *command: object) -> None:
        done = subprocess.run([*map(str, command)], capture_output=True, timeout=START_S, check=False)
        assert done.returncode == 0, f"{command[0]}: {done.stderr.decode(errors='replace')[-2000:]}"

    def _keep(self, *command: object) -> None:
        with (self.folder / "log" / "processes.out").open("ab") as log:
            self.processes.append(
                subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)
            )

    def _until(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            assert time.monotonic() < deadline, f"{what} did not start in {START_S} s:\n{self._last_words()}"
            for process in [process for process in self.processes if process.poll() is not None]:
                # now and then the OSD asks its monitor before it knows the fsid, is refused, and ends
                self.processes.remove(process)
                self._keep(*process.args)
            time.sleep(0.1)

    def _last_words(self) -> str:
        """The ends of all logs: whoever reads a report of tests often can't read this machine's files."""
        logs = sorted(path for path in (self.folder / "log").rglob("*") if path.is_file())  # a crash has a folder
        return "\n".join(f"{log}:\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The session's S3 server."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        reason = f"no {', '.join(missing)}: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd"
        if os.environ.get("VITPIPE_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    server = S3Server(tmp_path_factory.mktemp("s3"), free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty prefix; `AWS_*` of this process are set to reach it and nothing else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
