"""A service as a process: READY once, a clean end, a taken port, a kill."""

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from voicemesh.codec.v1 import codec_pb2

from common.serving.run import settle, start_in_turn
from common.status import error_of_call
from tests.common.service import Stub, dialled, failed, launched, process
from tests.mesh.processes import read_ready_lines

Request = codec_pb2.DecodeRequest


def output(*flags: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of a run that ends by itself."""
    with launched(*flags) as child:
        said, logged = child.communicate(timeout=15)
        return child.returncode, said.decode(), logged.decode()


async def test_sigterm_lets_the_running_stream_finish_and_exits_0() -> None:
    with process() as (child, address):
        async with dialled(address) as channel:
            call = Stub(channel).Decode()
            await call.write(Request(seq=1))
            await call.read()
            child.send_signal(signal.SIGTERM)
            while (error := await attempt(channel)) is None:
                pass
            await call.write(Request(seq=2))
            assert (await call.read()).seq == 2
            assert child.poll() is None
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
        assert child.wait(10) == 0
        assert child.stdout is not None
        assert child.stdout.read() == b""
    assert error_of_call(error).reason == "DRAINING"


async def attempt(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError | None:
    """Open a stream that ends at once; its error, or None when it was served."""
    call = Stub(channel).Decode()
    try:
        await call.done_writing()
        await call.read()
        return None if await call.code() is grpc.StatusCode.OK else await failed(call)
    except grpc.aio.AioRpcError as error:
        return error


async def test_a_second_signal_does_not_wait_for_the_deadline() -> None:
    with process("--drain-deadline-s", "600") as (child, address):
        async with dialled(address) as channel:
            call = Stub(channel).Decode()
            await call.write(Request(seq=1))
            await call.read()
            child.send_signal(signal.SIGTERM)
            while await attempt(channel) is None:
                pass
            child.send_signal(signal.SIGINT)
            error = await failed(call)
        assert child.wait(10) == 0
    assert error_of_call(error).reason == "DRAINING"


@pytest.mark.fault
async def test_a_killed_service_is_unavailable_and_its_port_is_free_again() -> None:
    with process() as (child, address):
        async with dialled(address) as channel:
            call = Stub(channel).Decode()
            await call.write(Request(seq=1))
            await call.read()
            child.kill()
            error = await failed(call)
        child.wait(5)
        with launched("--port", address.rpartition(":")[2]) as again:
            assert read_ready_lines(again, 1, 15)["codec"]["address"] == address
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_a_taken_port_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said, logged = output("--port", str(port), "--no-metrics")
    assert (code, said) == (1, "")
    assert f"Port {port} on 127.0.0.1 is taken by another program." in logged


def test_a_taken_metrics_port_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said, logged = output("--port", "0", "--metrics-port", str(port))
    assert (code, said) == (1, "")
    assert f"Port {port} for metrics on 127.0.0.1: address already in use." in logged


def test_a_wrong_configuration_is_a_sentence_and_exit_code_2() -> None:
    code, said, logged = output("--port", "70000")
    assert (code, said) == (2, "")
    assert logged.startswith("The configuration is wrong: port:")


def test_an_engine_that_cannot_start_ends_the_process_with_its_reason_logged() -> None:
    code, said, logged = output("--port", "0", "--fault", "start")
    last = json.loads(logged.splitlines()[-1])
    assert (code, said) == (1, "")
    assert last["message"] == "cannot serve"
    assert "the weights are not there" in last["exception"]


async def test_a_signal_while_starting_ends_at_once() -> None:
    with launched("--port", "0", "--start-s", "600") as child:
        assert child.stderr is not None
        assert b"configuration" in await asyncio.to_thread(child.stderr.readline)
        child.send_signal(signal.SIGTERM)
        said, _ = await asyncio.to_thread(child.communicate, None, 10)
        assert (child.returncode, said) == (0, b"")


class Starting:
    """A part that tells when it begins to start and when it has."""

    def __init__(self, name: str, told: list[str], fails: bool = False) -> None:
        self._name, self._told, self._fails = name, told, fails

    async def start(self) -> None:
        self._told.append(f"{self._name} begins")
        await asyncio.sleep(0)
        if self._fails:
            raise OSError(self._name)
        self._told.append(f"{self._name} ready")

    async def close(self) -> None:
        pass


async def test_parts_of_one_process_start_one_after_another() -> None:
    told, turn = list[str](), asyncio.Lock()
    parts = [Starting("a", told), Starting("b", told, fails=True), Starting("c", told)]
    await asyncio.gather(*(start_in_turn(part, turn) for part in parts), return_exceptions=True)
    assert told == ["a begins", "a ready", "b begins", "c begins", "c ready"]


@pytest.fixture
def collector() -> Iterator[None]:
    """As it was, afterwards."""
    thresholds, callbacks = gc.get_threshold(), gc.callbacks[:]
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_what_was_made_to_start_is_not_looked_through_again() -> None:
    kept = [[] for _ in range(1000)]
    settle()
    assert gc.get_freeze_count() > len(kept)
    assert not any(one is kept[0] for one in gc.get_objects())


@pytest.mark.usefixtures("collector")
def test_what_comes_after_the_start_does_not_wait_for_a_quarter_of_it() -> None:
    kept: list[list[int]] = [[] for _ in range(200_000)]
    settle()
    gc.set_threshold(10, 2, 2)
    before = gc.get_stats()[2]["collections"]
    later: list[list[int]] = [[] for _ in range(1000)]
    assert gc.get_stats()[2]["collections"] > before
    assert len(kept) > len(later)


class Circle:
    """What holds itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.mark.usefixtures("collector")
def test_what_is_tied_in_circles_is_let_go_of_before_long() -> None:
    """Within 20,000 new objects: Python's own thresholds let it wait for 70,000 at least."""
    settle()
    lived_long = Circle()
    circle = weakref.ref(lived_long)
    gc.collect(1)  # only a collection of everything looks at it again
    del lived_long
    kept = [[] for _ in range(20_000)]
    assert circle() is None
    assert len(kept) == 20_000


async def test_every_line_of_the_log_is_json_and_metrics_are_served() -> None:
    with process() as (child, address):
        assert child.stderr is not None
        configured, ready = (json.loads(child.stderr.readline()) for _ in range(2))
        assert configured["config"]["drain_deadline_s"] == 30.0
        async with dialled(address) as channel:
            assert await attempt(channel) is None
        page = await asyncio.to_thread(fetched, f"http://127.0.0.1:{ready['metrics_port']}/metrics")
    assert b'rpc_method="voicemesh.codec.v1.CodecService/Decode"' in page


def fetched(url: str) -> bytes:
    """The body of a page."""
    with urlopen(url, timeout=5) as answer:
        return bytes(answer.read())


@pytest.mark.usefixtures("collector")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="of glibc alone")
def test_what_was_needed_once_is_given_back_though_what_stays_lies_between() -> None:
    settle()
    blocks = [bytes(2000) for _ in range(40_000)]
    kept = blocks[::100]
    del blocks
    before = resident_mib()
    gc.collect()
    assert before - resident_mib() > 30
    assert len(kept) == 400


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
