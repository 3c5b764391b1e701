"""Trainings over hosts with networks of their own: who may reach what, a host that dies, and one that is cut off.

Every disturbed training ends with the losses, weights and moments of the one that nobody disturbed.
"""

import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from driving import finish, wait_for
from host_cluster import HostCluster, documented_ports, host_cluster
from hosts import Host, answering, inside, listening, once

pytestmark = [pytest.mark.drill, pytest.mark.s3, pytest.mark.timeout(1500)]

CUT_S = 60.0
SPEC = """
version: 1
name: {name}
store: {store}
nodes:{glyphs}
  backbone:
    stage: pretrain
    needs: {{shards: {shards}}}
    config:
      model: {{variant: {{layers: 2, width: 32, mlp: 64, heads: 2, patch_px: 8}}, image_px: 16, dropout: 0.1}}
      batch_images: 32
      total: {steps} steps
      optimizer: {{peak_lr: 1e-3}}
      augment: {{crop: resize, resize_px: 18, flip: false, mixup: 0.2}}
      precision: fp32
      seed: 3
    resources: {{workers: 2, cpus_per_worker: {cpus}, zero: 1, micro_batch: 8, checkpoint_every: 50 steps, keep: 3,
                hang_timeout_s: 120}}
"""
GLYPHS = """
  glyphs:
    stage: ingest
    config: {source: {kind: glyphs, classes: 8, images_per_class: 32, image_px: 16}, images_per_shard: 64}
"""
STEPS = 400


@pytest.fixture(scope="module")
def cluster(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostCluster]:
    """Two hosts with two CPUs each."""
    with host_cluster(tmp_path_factory.mktemp("hosts"), s3_server) as made:
        for name, value in {**s3_server.environment}.items():
            pytest.MonkeyPatch().setenv(name, value)
        made.add("alpha", cpus=2)
        made.add("beta", cpus=2)
        yield made


@pytest.fixture(scope="module")
def outside(cluster: HostCluster) -> Host:
    """A host of the public network alone."""
    return cluster.hosts.add("outside", networks=("public",))


def spec(cluster: HostCluster, name: str, cpus: int = 2, steps: int = STEPS) -> Path:
    """A training of two ranks, one a host where each takes both CPUs; on the shards of `calm`, which makes them."""
    first = name == "calm"
    shards = "glyphs" if first else f"{cluster.store}/calm/glyphs"
    path = cluster.shared / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, store=cluster.store, glyphs=GLYPHS if first else "", shards=shards,
                                steps=steps, cpus=cpus))  # fmt: skip
    return path


def step(cluster: HostCluster, name: str) -> int:
    return int((cluster.read(f"{name}/backbone/progress.json") or {}).get("step", 0))


@pytest.fixture(scope="module")
def calm(cluster: HostCluster, outside: Host) -> dict[str, Any]:
    """What a training that nobody disturbs leaves, and who listens and answers while it runs."""
    alpha, beta = cluster.hosts.all[:2]
    process = cluster.begin(alpha, "run", spec(cluster, "calm"))
    wait_for("training", lambda: step(cluster, "calm") > 0, process)
    seen = {"ranks": cluster.read("calm/backbone/progress.json")["ranks"]}
    for host, other in ((alpha, beta), (beta, alpha)):
        seen[host.name] = {
            "listening": listening(host),
            "inside": answering(other, host.address),
            "outside": answering(outside, host.public),
        }
    finish(process)
    return {**seen, "losses": cluster.losses("calm")}


def test_each_host_has_a_rank_and_both_took_tasks(cluster: HostCluster, calm: dict[str, Any]) -> None:
    assert {one["host"] for one in calm["ranks"]} == {"alpha", "beta"}


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_only_documented_ports_answer(name: str, calm: dict[str, Any], cluster: HostCluster, outside: Host) -> None:
    """What listens on the private address alone (the ranks' process group) answers nobody on the public network."""
    seen = calm[name]
    called = {port: f"{port} at {at}: {command[:120]}" for port, (at, command) in seen["listening"].items()}
    assert not {called.get(port, port) for port in seen["outside"] - documented_ports("all")}
    ranks = {port for port, (_, command) in seen["listening"].items() if "train" in command.lower()}
    assert not {called.get(port, port) for port in seen["inside"] - documented_ports()}, ranks


def test_another_port_would_be_found(cluster: HostCluster, outside: Host) -> None:
    """The negative control: a program that listens everywhere."""
    beta = cluster.hosts.all[1]
    with inside(beta, lambda: socket.create_server(("0.0.0.0", 0))) as server:
        port = server.getsockname()[1]
        assert port in answering(outside, beta.public, range(port, port + 1)) and port in listening(beta)
