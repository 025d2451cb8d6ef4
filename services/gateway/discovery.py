"""Where the replicas of a stage are: fixed addresses, and names that stand for all addresses behind them.

`dns:///tts-lm:50052`, in gRPC's own spelling, is every address that the name has now: a headless Service of Kubernetes,
say, whose pods come and go. Knows no channel and no stage.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

SCHEME = "dns:///"
LOOK_UP_S = 1.0  # a name server that is silent must not keep us from asking the replicas that we know
Lookup = Callable[[str, int], Awaitable[list[str]]]
logger = logging.getLogger(__name__)


async def look_up(host: str, port: int) -> list[str]:
    """Every address of that name, as HOST:PORT. OSError when nobody knows it, or says so in time."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOK_UP_S):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [f"[{to[0]}]:{port}" if family is socket.AF_INET6 else f"{to[0]}:{port}" for family, _, _, _, to in found]


class Directory:
    """The entries of a configuration, comma-separated, and what they stand for."""

    def __init__(self, entries: str, lookup: Lookup = look_up) -> None:
        self.entries = tuple(entry.strip() for entry in entries.split(","))
        self._lookup = lookup
        self._known: dict[str, list[str]] = {entry: [entry] for entry in self.entries if not _is_name(entry)}

    @property
    def changes(self) -> bool:
        """Whether asking again can tell anything new."""
        return any(map(_is_name, self.entries))

    @property
    def addresses(self) -> list[str]:
        """What is known now, each once, in the order of the entries."""
        return list(dict.fromkeys(address for entry in self.entries for address in self._known.get(entry, ())))

    async def refresh(self) -> list[str]:
        """Ask for every name. One that nobody knows now keeps what it stood for: its replicas say whether they live."""
        for entry in filter(_is_name, self.entries):
            host, _, port = entry.removeprefix(SCHEME).rpartition(":")
            try:
                # In order, so that the same answer is the same list.
                self._known[entry] = sorted(await self._lookup(host.strip("[]"), int(port)))
            except OSError as error:
                logger.debug("name not found", extra={"name": entry, "why": str(error)})
        return self.addresses


def _is_name(entry: str) -> bool:
    return entry.startswith(SCHEME)
