"""Hosts that are namespaces of this machine: each has addresses, a name, processes, /tmp and shared memory of its own.

Nothing of theirs is seen in the machine's own network, and all of it ends with the processes that hold the namespaces.
Each host has an interface in a `private` network and one in a `public`. Knows no Ray and no run.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "mount", "hostname")
ROOT = Path(__file__).parents[2]
PRIVATE, PUBLIC = "10.77.0", "203.0.113"
SWITCH = 1
"""The last number of the switch's own address, in both networks: where the store answers."""
NEW_HOST = """
set -e
mount --bind "$1/etc-hosts" /etc/hosts
mount -t tmpfs shm /dev/shm
for seen in "$3" "$4"; do  # what every host sees, also where it lies below /tmp
  case "$seen" in /tmp/*) mkdir -p "$1$seen" && mount --rbind "$seen" "$1$seen" ;; esac
done
mount --rbind "$1/tmp" /tmp
hostname "$2"
ip link set lo up
echo ready
exec sleep infinity
"""


@dataclass
class Host:
    """One of them. `command` runs a program there."""

    name: str
    number: int
    folder: Path
    """What is its own: `tmp` below it is its /tmp."""
    clock_ahead: str = ""
    """How far its wall clock is off, as libfaketime says it: `+20m`."""
    holder: "subprocess.Popen[str]" = field(init=False, repr=False)
    init: int = 0
    """Process 1 of the host, by its number on this machine."""

    @property
    def address(self) -> str:
        return f"{PRIVATE}.{self.number}"

    @property
    def public(self) -> str:
        return f"{PUBLIC}.{self.number}"

    def command(self, *command: object) -> list[str]:
        clock = ["env", f"LD_PRELOAD={faketime()}", f"FAKETIME={self.clock_ahead}"]
        enter = [
            "nsenter",
            f"--target={self.init}",
            "--net",
            "--uts",
            "--mount",
            "--pid",
            "--ipc",
            f"--wd={os.getcwd()}",
        ]
        return [*enter, "--", *(clock if self.clock_ahead else ()), *map(str, command)]

    def start(self, *command: object, cwd: Path, env: Mapping[str, str], log: Path) -> "subprocess.Popen[str]":
        """Begin a program there; what it prints goes to a file."""
        with log.open("a") as file:
            return subprocess.Popen(
                [*self.command("env", f"--chdir={cwd}", *command)], env=dict(env), stdout=file, stderr=file,
                stdin=subprocess.DEVNULL, text=True, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """End every process of the host at once, as when its power fails; its addresses are gone too."""
        self.holder.kill()
        self.holder.communicate(timeout=30)


class Hosts:
    """The hosts and the switch between them."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self.shared = folder, shared
        self.all: list[Host] = []
        self.switch = self._begin(Host("switch", SWITCH, folder / "switch"))
        for network, prefix in (("private", PRIVATE), ("public", PUBLIC)):
            self._in_switch("ip", "link", "add", network, "type", "bridge")
            self._in_switch("ip", "addr", "add", f"{prefix}.{SWITCH}/24", "dev", network)
            self._in_switch("ip", "link", "set", network, "up")

    def add(self, name: str, networks: tuple[str, ...] = ("private", "public"), clock_ahead: str = "") -> Host:
        """A new host with an interface in each network, called like it."""
        host = self._begin(Host(name, 10 + len(self.all), self.folder / name, clock_ahead))
        self.all.append(host)
        for network in networks:
            port, prefix = self._port(host, network), PRIVATE if network == "private" else PUBLIC
            self._in_switch("ip", "link", "add", port, "type", "veth", "peer", "name", network, "netns", host.init)
            self._in_switch("ip", "link", "set", port, "master", network, "up")
            once(*host.command("ip", "addr", "add", f"{prefix}.{host.number}/24", "dev", network))
            once(*host.command("ip", "link", "set", network, "up"))
        return host

    def cut(self, host: Host) -> None:
        """Lose every packet from and to a host without a word, as a broken switch does: its links stay up."""
        for network in ("private", "public"):
            self._in_switch("ip", "link", "set", self._port(host, network), "nomaster")

    def heal(self, host: Host) -> None:
        for network in ("private", "public"):
            self._in_switch("ip", "link", "set", self._port(host, network), "master", network)

    def close(self) -> None:
        for host in [*self.all, self.switch]:
            host.kill()

    def _port(self, host: Host, network: str) -> str:
        return f"{network[:4]}{host.number}"

    def _in_switch(self, *command: object) -> None:
        once("nsenter", f"--target={self.switch.init}", "--net", "--", *command)

    def _begin(self, host: Host) -> Host:
        (host.folder / "tmp").mkdir(parents=True)
        names = [(f"{PRIVATE}.{SWITCH}", "store"), *((one.address, one.name) for one in [*self.all, host])]
        lines = ["127.0.0.1 localhost", f"127.0.1.1 {host.name}", *(f"{at} {name}" for at, name in names[:-1])]
        (host.folder / "etc-hosts").write_text("\n".join(lines) + "\n")  # its own name on loopback, as Debian does
        host.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--uts", "--mount", "--ipc", "--pid", "--fork",
             "--kill-child", "--mount-proc", "sh", "-c", NEW_HOST, "sh", host.folder, host.name, self.shared, ROOT],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert host.holder.stdout
        said = host.holder.stdout.readline()
        assert said == "ready\n", said + host.holder.stdout.read()
        host.init = int(Path(f"/proc/{host.holder.pid}/task/{host.holder.pid}/children").read_text().split()[0])
        return host


@contextmanager
def hosts(folder: Path, shared: Path) -> Iterator[Hosts]:
    """The switch, to add hosts to. All of them see `shared`, a folder below /tmp, under its own name."""
    require_namespaces()
    made = Hosts(folder, shared)
    try:
        yield made
    finally:
        made.close()


def require_namespaces() -> None:
    """Skip the test, with the reason, where this machine lacks what hosts are made of."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"no hosts in namespaces here: no {', '.join(missing)}")
    every = ["unshare", "--net", "--uts", "--mount", "--ipc", "--pid", "--fork"]
    link = ["ip", "link", "add", "one", "type", "veth", "peer", "name", "other"]
    tried = subprocess.run([*every, *link], capture_output=True, text=True, timeout=60)
    if tried.returncode:
        pytest.skip(f"no hosts in namespaces here: {tried.stderr.strip()}")


def faketime() -> str:
    """Where Debian's libfaketime lies. Skips the test without it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        lacking = pytest.fail if os.environ.get("VITPIPE_REQUIRE_SERVICES") == "1" else pytest.skip
        lacking("no libfaketime: apt-get install libfaketime")
    return str(found[0])


def once(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def inside(host: Host, fn: Callable[[], T]) -> T:
    """Call `fn` in the network of a host, in a thread of its own: sockets stay where they were made."""
    found: list[Any] = []

    def enter() -> None:
        try:
            with open(f"/proc/{host.init}/ns/net") as namespace:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) == 0, os.strerror(
                    ctypes.get_errno()
                )
            found.append(fn())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def answering(host: Host, address: str, ports: range = range(1, 65536)) -> set[int]:
    """The TCP ports of an address that take a connection from a host."""

    def scan() -> set[int]:
        return {port for port in ports if takes(address, port)}

    return inside(host, scan)


def takes(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def listening(host: Host) -> dict[int, tuple[str, str]]:
    """Port -> (address it is bound to, command line), of all that listens on a host."""
    found = {}
    for line in once(*host.command("ss", "-Hltnp")).splitlines():
        _, _, _, local, _, *users = line.split(maxsplit=5)
        address, _, port = local.rpartition(":")
        pid = users[0].split("pid=")[1].split(",")[0] if users and "pid=" in users[0] else ""
        called = once(*host.command("cat", f"/proc/{pid}/cmdline")).replace("\0", " ").strip() if pid else "?"
        found[int(port)] = address, called
    return found
