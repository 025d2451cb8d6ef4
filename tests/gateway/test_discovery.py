"""Names that stand for many addresses, and replicas that come and go behind them."""

from __future__ import annotations

import pytest
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from services.gateway.clients import Replicas, Stages
from services.gateway.discovery import Directory, look_up
from tests.edges import serving

START = tts_lm_pb2.GenerateRequest(start=tts_lm_pb2.GenerateStart())


class Names:
    """A name server whose answers a test writes."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses

    async def __call__(self, host: str, port: int) -> list[str]:
        if host not in self.addresses:
            raise OSError("no such name")
        return [address if ":" in address else f"{address}:{port}" for address in self.addresses[host]]


async def test_a_name_is_all_addresses_behind_it_and_an_address_itself() -> None:
    names = Names(one=["10.0.0.2", "10.0.0.1"])
    directory = Directory("10.0.0.9:1, dns:///one:2", names)
    assert directory.changes
    assert directory.addresses == ["10.0.0.9:1"]
    assert await directory.refresh() == ["10.0.0.9:1", "10.0.0.1:2", "10.0.0.2:2"]
    names.addresses["one"] = ["10.0.0.3"]
    assert await directory.refresh() == ["10.0.0.9:1", "10.0.0.3:2"]


async def test_a_name_server_that_is_away_takes_no_replica_away() -> None:
    names = Names(one=["10.0.0.1"])
    directory = Directory("dns:///one:2", names)
    await directory.refresh()
    names.addresses.clear()
    assert await directory.refresh() == ["10.0.0.1:2"]


async def test_addresses_alone_are_never_asked_for() -> None:
    assert not Directory("10.0.0.9:1,host:2").changes


async def test_this_machine_is_found_by_its_name() -> None:
    found = await look_up("localhost", 7)
    assert {"127.0.0.1:7", "[::1]:7"} & set(found)
    with pytest.raises(OSError, match=r"."):
        await look_up("nobody.invalid", 7)


async def test_a_replica_that_joins_is_used_and_one_that_leaves_says_what_it_was_saying() -> None:
    async with serving("tts_lm") as old, serving("tts_lm") as new:
        names = Names(pool=[old.address])
        stages = Stages("127.0.0.1:1", "127.0.0.1:1")
        pool = stages.tts_lm = Replicas(
            "tts_lm",
            Directory("dns:///pool:1", names),
            tts_lm_pb2_grpc.TtsLmServiceStub,
            lambda stub: stub.GetModel(tts_lm_pb2.GetModelRequest(), timeout=5),
            10.0,
        )
        assert pool.choose("s") is None
        await pool.look()
        leaver = pool.choose("s")
        assert leaver is not None
        stream = stages.generate(leaver)
        stream.send(START)
        assert (await stream.receive()).HasField("started")

        names.addresses["pool"] = [new.address]
        await pool.look()
        joiner = pool.choose("s")
        assert joiner is not None
        assert (joiner.address, joiner.is_suspect, joiner.free_slots > 0) == (new.address, False, True)
        stream.send(tts_lm_pb2.GenerateRequest(text=tts_lm_pb2.TextDelta(text="still here")))
        assert (await stream.receive()).HasField("frames")

        stream.hang_up()
        await pool.look()
        names.addresses["pool"] = [new.address, old.address]
        await pool.look()
        assert leaver not in pool.all
        assert [replica.info is not None for replica in pool.all] == [True, True]
        await stages.close()
