"""The relays pass what they should, and fail as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.impairment.path import Impairment
from tests.impairment.tcp import TcpRelay
from tests.impairment.udp import UdpRelay

SDP = "\r\n".join(
    [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        "a=ice-ufrag:a",
        "a=ice-pwd:b",
        "a=candidate:1 1 udp 2130706431 {host} {port} typ host",
        "a=candidate:2 1 udp 1 8f2c.local 5000 typ host",
        "",
    ]
)


class _Box(asyncio.DatagramProtocol):
    """Keeps what comes; `back` sends to whoever wrote last."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[bytes] = asyncio.Queue()
        self.sender: tuple[str, int] | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.sender = addr
        self.came.put_nowait(data)


async def box() -> tuple[asyncio.DatagramTransport, _Box]:
    return await asyncio.get_running_loop().create_datagram_endpoint(_Box, local_addr=("127.0.0.1", 0))


async def test_a_client_and_a_gateway_meet_only_at_the_relay() -> None:
    (here, client), (there, gateway) = await box(), await box()
    async with UdpRelay(up=Impairment(loss=1.0)) as relay:
        host, port = there.get_extra_info("sockname")
        answer = relay.answer(SDP.format(host=host, port=port))
        offer = relay.offer(SDP.format(host="10.0.0.1", port=1))
        near, far = (line for text in (answer, offer) for line in text.split("\r\n") if "candidate" in line)
        target = (near.split()[4], int(near.split()[5]))
        for data in (b"\x00stun", b"\x16dtls", b"\x80rtp", b"\x01last"):
            here.sendto(data, target)
        assert [await gateway.came.get() for _ in range(3)] == [b"\x00stun", b"\x16dtls", b"\x01last"]
        assert relay.up.fate.lost == 1
        there.sendto(b"\x80back", (far.split()[4], int(far.split()[5])))
        assert await client.came.get() == b"\x80back"
        assert client.sender == target
    here.close()
    there.close()


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """A server that sends back whatever comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.close()


@asynccontextmanager
async def dialled(relay: TcpRelay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = relay.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_tcp_passes_both_ways_and_its_end_too() -> None:
    async with echoing() as server, TcpRelay(server) as relay, dialled(relay) as (reader, writer):
        writer.write(b"x" * 100_000)
        writer.write_eof()
        assert len(await reader.read()) == 100_000
        assert relay.passed_bytes == 200_000


async def test_tcp_is_as_slow_as_asked() -> None:
    loop = asyncio.get_running_loop()
    slow = {"delay_s": 0.05, "bytes_per_s": 100_000}
    async with echoing() as server, TcpRelay(server, **slow) as relay, dialled(relay) as (reader, writer):
        began_s = loop.time()
        writer.write(b"x" * 10_000)
        await reader.readexactly(10_000)
        assert loop.time() - began_s >= 0.1  # 50 ms each way
        writer.write(b"y" * 30_000)
        began_s = loop.time()
        await reader.readexactly(30_000)
        assert loop.time() - began_s >= 0.2


async def test_a_stalled_connection_loses_nothing() -> None:
    async with echoing() as server, TcpRelay(server) as relay, dialled(relay) as (reader, writer):
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        relay.stall()
        writer.write(b"2")
        reading = asyncio.ensure_future(reader.readexactly(1))
        done, _ = await asyncio.wait([reading], timeout=0.1)
        assert not done
        relay.resume()
        assert await reading == b"2"


async def test_a_cut_connection_is_gone_until_it_is_mended() -> None:
    gone = (ConnectionError, asyncio.IncompleteReadError)
    async with echoing() as server, TcpRelay(server) as relay:
        async with dialled(relay) as (reader, writer):
            writer.write(b"1")
            await reader.readexactly(1)
            relay.cut()
            with pytest.raises(gone):
                await reader.readexactly(1)
        async with dialled(relay) as (reader, writer):
            with pytest.raises(gone):
                await reader.readexactly(1)
        relay.mend()
        async with dialled(relay) as (reader, writer):
            writer.write(b"3")
            assert await reader.readexactly(1) == b"3"
