"""Where the ranks of a gang listen for each other: on the address of their node that Ray knows, and on no other.

Left alone, torch's meeting place takes every address of the machine, and gloo the one that its host name stands for:
on Debian that is loopback, where no other machine finds it. Knows no gang; torch is imported only in a rank's process.
"""

import socket

import psutil

IPV6_LINK = "%"


def interface_of(address: str) -> str | None:
    """Name the network interface that has an address; None when no interface here has."""
    for name, found in psutil.net_if_addrs().items():
        if any(one.address.split(IPV6_LINK)[0] == address for one in found):
            return str(name)
    return None


def listen_at(address: str) -> socket.socket:
    """Open a socket that listens at any free port of an address; nobody else can have that port any more."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, 0), family=family, backlog=1024)
