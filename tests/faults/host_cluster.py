"""A Ray of several hosts as docs/operations.md has it started, and a store that each reaches over its network."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import s3_server
from driving import finish
from hosts import PRIVATE, SWITCH, Host, Hosts, hosts, inside
from s3_proxy import Proxy, s3_proxy

from vitpipe.infra.storage.opening import open_store

REPOSITORY = Path(__file__).parents[2]
RAYLET_TRIES = 3
"""On a busy machine one may not be ready within Ray's 30 s, and gives up."""
OPERATIONS = REPOSITORY / "docs" / "operations.md"


@dataclass
class HostCluster:
    """Its head is the first host that is added."""

    hosts: Hosts
    shared: Path
    """A folder that all see, for YAML files and what programs print."""
    proxy: Proxy
    """Where all of them meet the store: it knows who asked for what."""
    store: str
    environment: dict[str, str]
    raylets: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    @property
    def head(self) -> Host:
        return self.hosts.all[0]

    @property
    def address(self) -> str:
        return f"{self.head.address}:6379"

    def add(self, name: str, cpus: int, **how: Any) -> Host:
        """A new host with a raylet."""
        return self.join(self.hosts.add(name, **how), cpus)

    def join(self, host: Host, cpus: int, **env: str) -> Host:
        """Have the host's raylet start, once more when it had one; it is there when this returns."""
        role = (
            ["--head", "--port=6379", "--dashboard-host=127.0.0.1"]
            if host is self.head
            else [f"--address={self.address}"]
        )
        for _ in range(RAYLET_TRIES):
            log = self.shared / f"{host.name}-{secrets.token_hex(4)}.log"
            self.raylets[host.name] = raylet = host.start(
                Path(sys.executable).with_name("ray"), "start", "--block", *role, f"--num-cpus={cpus}",
                f"--node-ip-address={host.address}", *documented_options(),
                cwd=self.shared, env={**self.environment, **env}, log=log,
            )  # fmt: skip
            while raylet.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return host
                time.sleep(0.3)
        raise AssertionError(f"no Ray on {host.name}:\n{log.read_text()[-3000:]}")

    def begin(self, host: Host, *arguments: object, **env: str) -> "subprocess.Popen[str]":
        """Begin `vitpipe *arguments` on a host, in the cluster."""
        log = self.shared / f"drive-{secrets.token_hex(4)}"
        with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("w") as err:
            process = subprocess.Popen(
                host.command("env", f"--chdir={self.shared}", sys.executable, "-m", "vitpipe.pipeline", *arguments),
                env={**self.environment, "RAY_ADDRESS": self.address, **env},
                stdout=out, stderr=err, stdin=subprocess.DEVNULL, text=True, start_new_session=True,
            )  # fmt: skip
        process.log = log  # type: ignore[attr-defined]
        return process

    def vitpipe(self, host: Host, *arguments: object, expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        return finish(self.begin(host, *arguments), expect=expect)

    def read(self, path: str) -> Any:
        """A JSON file of the store, None while it is absent."""
        store = open_store(self.store)
        return json.loads(store.read(path)) if store.size(path) is not None else None

    def losses(self, run: str, node: str = "backbone") -> list[tuple[int, str]]:
        """(step, loss as float.hex), and the digests of the last step's state, of a committed training."""
        record = self.read(f"{run}/{node}/record.json")
        at = next(file["at"] for file in record["files"] if file["path"] == "metrics.jsonl")
        lines = map(json.loads, open_store(self.store).read(f"{run}/{node}/{at}").decode().splitlines())
        state = f"{record['output']['folder']}/state/"
        digests = [(0, file["sha256"]) for file in record["files"] if file["path"].startswith(state)]
        return [(line["step"], line["loss_hex"]) for line in lines] + sorted(digests)

    def events(self, run: str, kind: str) -> list[str]:
        lines = self.vitpipe(self.head, "events", f"{self.store}/{run}", "--json").stdout.splitlines()
        return [event["text"] for event in map(json.loads, lines) if event["kind"] == kind]


@contextmanager
def host_cluster(folder: Path, server: "s3_server.S3Server") -> Iterator[HostCluster]:
    """Hosts without any Ray yet, and a store on an S3 server that they reach at the switch."""
    shared = folder / "shared"
    shared.mkdir(parents=True)
    with ExitStack() as after, hosts(folder / "own", shared) as several:
        store_at = f"{PRIVATE}.{SWITCH}"
        with s3_proxy(server.endpoint, store_at, lambda make: inside(several.switch, make)) as proxy:
            environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))},
                **server.environment, "AWS_ENDPOINT_URL": proxy.endpoint, "PYTHONPATH": str(REPOSITORY),
                "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0",
                "COLUMNS": "200", "OMP_NUM_THREADS": "1", "HOME": "/tmp",
            }  # fmt: skip
            store = f"s3://{s3_server.BUCKET}/{secrets.token_hex(8)}"
            made = HostCluster(several, shared, proxy, store, environment)
            after.callback(lambda: [raylet.wait(30) for raylet in made.raylets.values()])  # they end with their hosts
            yield made


def documented_options() -> list[str]:
    """The ports that operations.md has `ray start` use."""
    block = re.search(r"^```\n(ray start .*?)```", OPERATIONS.read_text(), re.M | re.S)
    assert block
    return re.findall(r"--(?:[a-z-]*-port)=\d+", block[1])


def documented_ports(bound: str | None = None) -> set[int]:
    """Every port of the table of operations.md; with `bound`, those whose row says that they are bound there.

    Without those of the process group: of a range that wide anything would be found documented.
    """
    section = OPERATIONS.read_text().split("## Ports")[1].split("\n## ")[0]
    found: set[int] = set()
    for ports, whose, where in re.findall(r"^\| ([\d,  -]+) \|([^|]+)\| ([^|]+) \|", section, re.M):
        if "process group" in whose:
            continue
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", ports):
            if bound is None or bound in where:
                found |= set(range(int(first), int(last or first) + 1))
    return found
