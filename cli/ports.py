"""Ports before anybody listens on them: which are taken, which are free."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from cli.errors import CommandError

# Below the range from which Linux takes the ports of outgoing connections: what is free now stays free for a while.
_FREE_RANGE = range(20_000, 32_000)
_ATTEMPTS = 200


@dataclass(frozen=True)
class Wanted:
    """A port that somebody is going to listen on."""

    purpose: str
    host: str
    port: int


def refuse_taken(wanted: Sequence[Wanted]) -> None:
    """CommandError with one sentence that names every taken port; a port of 0 is free by definition."""
    taken = [f"port {w.port} on {w.host} ({w.purpose})" for w in wanted if w.port and not is_free(w.host, w.port)]
    if taken:
        verb = "is" if len(taken) == 1 else "are"
        raise CommandError(f"{', '.join(taken)} {verb} taken: end what listens there, or use --ports free")


def is_free(host: str, port: int) -> bool:
    """Whether one could listen there now; an address that is not this machine's counts as not free."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does: TIME_WAIT is no obstacle
            probe.bind(address)
            probe.listen(1)
    except OSError:
        return False
    return True


def free_ports(host: str, count: int) -> list[int]:
    """Different ports on which nobody listens now."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_FREE_RANGE, _ATTEMPTS):
        if len(found) == count:
            break
        if is_free(host, port):
            found.append(port)
    if len(found) < count:
        raise CommandError(f"no {count} free ports on {host} among {_ATTEMPTS} that were tried; is it this machine's?")
    return found
