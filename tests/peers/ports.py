"""Free TCP ports for peers that must be told theirs before they start."""

import random
import socket
from pathlib import Path

_LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return *count* different ports of *host* that nobody listens on.

    They lie below the system's range of ephemeral ports: while a server is down, a client that keeps dialing a
    port inside that range can be given the same port as its own, connects to itself, and the server can never
    bind it again. Somebody may still be faster, so whoever starts a server tries again with others.
    """
    dice = random.SystemRandom()
    highest = _lowest_ephemeral_port() - 1
    found: list[int] = []
    for _ in range(10_000):
        port = dice.randint(10_000, highest)
        if port not in found and _is_free(host, port):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"no {count} free ports between 10000 and {highest} on {host}")


def _lowest_ephemeral_port() -> int:
    try:
        lowest = int(_LOCAL_PORTS.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        lowest = 32768
    return lowest if lowest > 11_000 else 65536


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
