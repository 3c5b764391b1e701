"""Hosts in namespaces are apart as real ones are; ranks on two of them meet, and listen for nobody else."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from driving import wait_for
from hosts import Host, Hosts, answering, hosts, inside, listening, once, takes

REPOSITORY = Path(__file__).parents[2]
ALPHAS = "vitpipe-only-alpha-has-this"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts, and one that has the public network alone."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "shared").mkdir()
    with hosts(folder / "own", folder / "shared") as made:
        made.add("alpha")
        made.add("beta")
        made.add("outside", networks=("public",))
        yield made


def test_each_has_its_name_its_tmp_and_its_network(several: Hosts) -> None:
    alpha, beta, _ = several.all
    once(*alpha.command("touch", f"/tmp/{ALPHAS}", several.shared / "ours"))
    assert once(*beta.command("hostname")) == "beta\n"
    assert ALPHAS not in once(*beta.command("ls", "/tmp")) and not Path(f"/tmp/{ALPHAS}").exists()
    assert "ours" in once(*beta.command("ls", several.shared)) and (several.shared / "ours").exists()
    assert "private" not in [name for _, name in socket.if_nameindex()]


def test_a_cut_is_silent_and_heals(several: Hosts) -> None:
    alpha, beta, _ = several.all
    with inside(beta, lambda: socket.create_server((beta.address, 5000))):
        assert inside(alpha, lambda: takes(beta.address, 5000))
        several.cut(beta)
        try:
            assert not inside(alpha, lambda: takes(beta.address, 5000))
            assert "state UP" in once(*beta.command("ip", "link", "show", "private"))
        finally:
            several.heal(beta)
        assert inside(alpha, lambda: takes(beta.address, 5000))


def test_a_clock_of_its_own(several: Hosts) -> None:
    late = several.add("late", clock_ahead="+20m")
    assert 1190 < int(once(*late.command("date", "+%s"))) - time.time() < 1260


@pytest.mark.parametrize("interface", ["", "public"])
def test_ranks_listen_on_the_nodes_address_alone(interface: str, several: Hosts, tmp_path: Path) -> None:
    """Their host names stand for loopback, as on Debian. With an interface that the operator chose, it is that one:

    the negative control, for then a host outside reaches them.
    """
    alpha, beta, outside = several.all[:3]
    folder = several.shared / f"meeting-{interface}"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    environment |= {"GLOO_SOCKET_IFNAME": interface} if interface else {}
    program = Path(__file__).with_name("meeting.py")
    ranks = [
        host.start(sys.executable, program, rank, host.address, folder, cwd=folder, env=environment, log=folder / "log")
        for rank, host in enumerate((alpha, beta))
    ]
    sums = [folder / "sum-0", folder / "sum-1"]
    try:
        wait_for("their sum", lambda: all(one.exists() for one in sums) or any(one.poll() for one in ranks))
        assert [one.read_text() for one in sums] == ["3.0", "3.0"], (folder / "log").read_text()
        for host in (alpha, beta):
            bound = {address for address, command in listening(host).values() if "meeting.py" in command}
            assert bound == ({host.public} if interface else {host.address}) | _meets(host, alpha)
            assert bool(_ephemeral(outside, host)) == bool(interface)
    finally:
        (folder / "end").touch()
        for one in ranks:
            one.wait(60)


def _meets(host: Host, first: Host) -> set[str]:
    """Where the store of the process group is bound."""
    return {first.address} if host is first else set()


def _ephemeral(outside: Host, host: Host) -> set[int]:
    return answering(outside, host.public, range(32768, 61000))
