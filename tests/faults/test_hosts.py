"""Trainings over hosts with networks of their own: who may reach what, a host that dies, and one that is cut off.

Every disturbed training ends with the losses, weights and moments of the one that nobody disturbed.
"""

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from driving import finish, wait_for
from host_cluster import HostCluster, documented_ports, host_cluster
from hosts import Host, answering, inside, listening

from vitpipe.infra.storage.opening import open_store

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
    resources: {{workers: {workers}, cpus_per_worker: {cpus}, zero: 1, micro_batch: 8, checkpoint_every: 10 steps,
                keep: 3, hang_timeout_s: 120}}
"""
GLYPHS = """
  glyphs:
    stage: ingest
    config: {source: {kind: glyphs, classes: 8, images_per_class: {images}, image_px: 16}, images_per_shard: 64}
"""
STEPS = 60
KERNELS = 32768
"""The first port that Linux gives to who asks for any."""


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


def spec(cluster: HostCluster, name: str, cpus: int = 2, steps: int = STEPS, workers: int = 2) -> Path:
    """A training of two ranks, one a host where each takes both CPUs; on the shards of `calm` or its own."""
    images = {"calm": "32", "packed": "40"}.get(name)
    shards = "glyphs" if images else f"{cluster.store}/calm/glyphs"
    glyphs = GLYPHS.replace("{images}", images) if images else ""
    path = cluster.shared / f"{name}.yaml"
    path.write_text(
        SPEC.format(
            name=name, store=cluster.store, glyphs=glyphs, shards=shards, steps=steps, cpus=cpus, workers=workers
        )
    )
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


def test_ranks_that_need_a_whole_host_have_one_each(calm: dict[str, Any]) -> None:
    assert {one["host"] for one in calm["ranks"]} == {"alpha", "beta"}


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_only_documented_ports_answer(name: str, calm: dict[str, Any], cluster: HostCluster, outside: Host) -> None:
    """What listens on the private address alone (the ranks' process group) answers nobody on the public network."""
    seen, private = calm[name], next(host.address for host in cluster.hosts.all if host.name == name)
    called = {port: f"{port} at {at}: {command[:120]}" for port, (at, command) in seen["listening"].items()}
    assert not {called.get(port, port) for port in seen["outside"] - documented_ports("all")}
    group = {port for port, (at, command) in seen["listening"].items() if at == private and "ray::" in command}
    group -= documented_ports()
    assert group and min(group) >= KERNELS
    assert not {called.get(port, port) for port in seen["inside"] - documented_ports() - group}


def test_another_port_would_be_found(cluster: HostCluster, outside: Host) -> None:
    """The negative control: a program that listens everywhere."""
    beta = cluster.hosts.all[1]
    with inside(beta, lambda: socket.create_server(("0.0.0.0", 0))) as server:
        port = server.getsockname()[1]
        assert port in answering(outside, beta.public, range(port, port + 1)) and port in listening(beta)


def test_small_ranks_share_a_host_that_fetches_each_shard_once(cluster: HostCluster, calm: dict[str, Any]) -> None:
    """And the tasks before them were dealt to both. Its driver is on the host that has no dashboard."""
    process = cluster.begin(cluster.hosts.all[1], "run", spec(cluster, "packed", cpus=1, steps=10))
    ranks = wait_for("ranks", lambda: (cluster.read("packed/backbone/progress.json") or {}).get("ranks"), process)
    finish(process)
    assert len({one["host"] for one in ranks}) == 1 and len(ranks) == 2
    tars = [(asked.split("?")[0], headers["Client"]) for asked, headers in cluster.proxy.requests
            if "/packed/glyphs/" in asked and ".tar" in asked]  # fmt: skip
    fetched = Counter(one for one in tars if one[0].startswith("GET"))
    assert len(fetched) == 5 and set(fetched.values()) == {1}
    assert len({client for asked, client in tars if asked.startswith("PUT")}) == 2


@pytest.mark.parametrize(
    ("when", "method", "path"), [("step", "PUT", "/step-20/manifest.json"), ("upload", "PUT", "/step-40/")]
)
def test_a_host_that_is_cut_off_for_a_minute(
    when: str, method: str, path: str, cluster: HostCluster, calm: dict[str, Any]
) -> None:
    """In the steps after a commit, or while its own rank uploads. Ray's process there gives up and is started again."""
    beta, cut = cluster.hosts.all[1], threading.Event()
    who = beta.address if when == "upload" else ""
    cluster.proxy.faults.clear()
    cluster.proxy.plan("call", method=method, path=path, client=who, then=lambda: (cluster.hosts.cut(beta), cut.set()))
    process = cluster.begin(cluster.head, "run", spec(cluster, f"cut-{when}"))
    try:
        wait_for("the cut", cut.is_set, process)
        time.sleep(CUT_S)
    finally:
        cluster.hosts.heal(beta)
    while process.poll() is None:
        if cluster.raylets["beta"].poll() is not None:
            cluster.join(beta, cpus=2)
        time.sleep(1)
    finish(process)
    assert cluster.losses(f"cut-{when}") == calm["losses"]


def test_a_host_that_is_killed(cluster: HostCluster, calm: dict[str, Any]) -> None:
    """Another takes its place."""
    beta, dead = cluster.hosts.all[1], threading.Event()
    cluster.proxy.faults.clear()
    cluster.proxy.plan("call", method="PUT", path="/step-20/manifest.json", then=lambda: (beta.kill(), dead.set()))
    process = cluster.begin(cluster.head, "run", spec(cluster, "killed"))
    wait_for("its end", dead.is_set, process)
    cluster.add("gamma", cpus=2)
    finish(process)
    assert cluster.losses("killed") == calm["losses"]
    assert len(cluster.events("killed", "rank_lost")) == 1 and cluster.events("killed", "resumed")


@pytest.mark.parametrize(
    ("name", "clock_ahead", "env", "words"),
    [
        ("delta", "", {"AWS_SECRET_ACCESS_KEY": "canary-wrong-secret"}, "SignatureDoesNotMatch"),
        ("epsilon", "+20m", {}, "this machine's clock is 20 minutes ahead of the server's"),
        ("zeta", "", {"AWS_ENDPOINT_URL": "http://no-such-name.invalid:9"}, "no-such-name.invalid"),
    ],
)
def test_the_one_host_that_is_not_like_the_others_is_named(
    name: str, clock_ahead: str, env: dict[str, str], words: str, cluster: HostCluster, calm: dict[str, Any]
) -> None:
    """It has three CPUs, so that the one rank that asks for them is there."""
    cluster.proxy.faults.clear()
    host = cluster.hosts.add(name, clock_ahead=clock_ahead)
    cluster.join(host, 3, VITPIPE_STORAGE_DEADLINE_S="5", **env)
    done = cluster.vitpipe(cluster.head, "run", spec(cluster, name, cpus=3, workers=1), expect=7)
    assert f"(on {name})" in done.stdout and words in done.stdout + done.stderr
    host.kill()


def test_secrets_are_nowhere(cluster: HostCluster, calm: dict[str, Any]) -> None:
    """Neither the cluster's token nor a key to the store, in what all of the above printed, logged or stored."""
    store = open_store(cluster.store)
    told = {f"store {entry.path}": store.read(entry.path) for entry in store.list()}
    folders = [cluster.shared, *(host.folder / "tmp" for host in cluster.hosts.all)]
    told |= {str(path): path.read_bytes() for one in folders for path in one.rglob("*") if path.is_file()}
    assert len(told) > 100 and [name for name, data in told.items() if b"calm" in data]
    for secret in (cluster.environment["RAY_AUTH_TOKEN"], cluster.environment["AWS_SECRET_ACCESS_KEY"], "canary-wrong"):
        assert not [name for name, data in told.items() if secret.encode() in data]
