"""A server over real gRPC: alive and ready, draining, limits, reflection, TLS."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc

from common.serving import PortTaken, Server
from common.status import error_of_call
from tests.common.service import NAME, EchoConfig, Servicer, Stub, echo, failed, serving

Request = codec_pb2.DecodeRequest
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel: Any, service: str) -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_alive_comes_with_the_port_and_ready_when_it_is_said() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        await server.set_ready(False)
        assert (await health(channel, ""), await health(channel, NAME)) == (SERVING, NOT_SERVING)
        await server.set_ready(True)
        assert (await health(channel, ""), await health(channel, NAME)) == (SERVING, SERVING)
        error = await failed(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="no.One")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_sees_readiness_come_and_go() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == SERVING
        await server.set_ready(False)
        assert (await watch.read()).status == NOT_SERVING
        await server.set_ready(True)
        assert (await watch.read()).status == SERVING
        watch.cancel()


async def test_a_watcher_of_a_name_that_is_not_here_is_told_so() -> None:
    async with serving(Servicer(echo)) as (_, channel):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="no.One"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


async def test_a_watcher_that_does_not_read_holds_up_no_change() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        await watch.read()
        for turn in range(20_000):
            await server.set_ready(turn % 2 == 1)
        await server.set_ready(False)
        assert await health(channel, NAME) == NOT_SERVING
        watch.cancel()


async def test_calls_are_put_off_until_the_service_is_ready() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        await server.set_ready(False)
        error = await failed(Stub(channel).Decode())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error_of_call(error).reason == "NOT_READY"


async def test_a_broken_service_is_neither_ready_nor_alive() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        await server.fail("the device is gone")
        assert (await health(channel, ""), await health(channel, NAME)) == (NOT_SERVING, NOT_SERVING)
        assert server.failed.is_set()
        assert (await failed(Stub(channel).Decode())).code() is grpc.StatusCode.UNAVAILABLE


async def test_draining_lets_running_speech_finish_and_begins_nothing_new() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        running = Stub(channel).Decode()
        await running.write(Request(seq=1))
        assert (await running.read()).seq == 1
        draining = asyncio.create_task(server.drain(10))
        await server.draining.wait()
        refused = await failed(Stub(channel).Decode())
        assert await health(channel, NAME) == NOT_SERVING
        assert await health(channel, "") == SERVING
        await running.write(Request(seq=2))
        assert (await running.read()).seq == 2
        assert not draining.done()
        await running.done_writing()
        await draining
        assert await running.code() is grpc.StatusCode.OK
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert error_of_call(refused).reason == "DRAINING"


async def test_at_the_drain_deadline_callers_are_told_why_their_stream_ends() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        running = Stub(channel).Decode()
        await running.write(Request(seq=1))
        await running.read()
        await server.drain(0.05)
        error = await failed(running)
        assert server.running_count == 0
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error_of_call(error).reason == "DRAINING"


async def test_a_health_watcher_does_not_hold_up_draining() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        await watch.read()
        await server.drain(10)
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()


async def test_a_handler_that_resists_its_end_does_not_hold_up_stopping(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def resist(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
        yield codec_pb2.DecodeResponse()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with serving(Servicer(resist)) as (server, channel):
        call = Stub(channel).Decode()
        await call.read()
        await server.drain(0)
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
            "calls resist their end"
        ]
        release.set()
        call.cancel()
        await server.idle()


async def test_more_streams_than_the_cap_are_sent_elsewhere_while_single_calls_go_on() -> None:
    async def get_codec(request: Any, context: Any) -> codec_pb2.GetCodecResponse:
        return codec_pb2.GetCodecResponse(slot_count=1)

    async with serving(Servicer(echo, get_codec=get_codec), EchoConfig(max_streams=1)) as (server, channel):
        running = Stub(channel).Decode()
        await running.write(Request(seq=1))
        await running.read()
        error = await failed(Stub(channel).Decode())
        assert (await Stub(channel).GetCodec(codec_pb2.GetCodecRequest())).slot_count == 1
        running.cancel()
        await server.idle()
        again = Stub(channel).Decode()
        await again.write(Request(seq=2))
        assert (await again.read()).seq == 2
        again.cancel()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_of_call(error).reason == "NO_SLOT"


async def listed(channel: Any) -> list[str]:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    return sorted(service.name for service in answer.list_services_response.service)


async def test_reflection_names_every_service_and_channelz_every_server() -> None:
    async with serving(Servicer(echo)) as (_, channel):
        assert await listed(channel) == sorted(
            [NAME, "grpc.channelz.v1.Channelz", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
        )
        answer = await channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest())
        assert len(answer.server) >= 1


async def test_reflection_and_channelz_can_be_switched_off() -> None:
    async with serving(Servicer(echo), EchoConfig(reflection=False, channelz=False)) as (_, channel):
        reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        assert (await failed(reflected)).code() is grpc.StatusCode.UNIMPLEMENTED
        servers = channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest())
        assert (await failed(servers)).code() is grpc.StatusCode.UNIMPLEMENTED
        assert await health(channel, NAME) == SERVING


async def test_a_taken_port_is_named_and_never_shared() -> None:
    async with serving(Servicer(echo)) as (server, _):
        second = Server(EchoConfig(port=server.port))
        second.add(codec_pb2_grpc.add_CodecServiceServicer_to_server, Servicer(echo), NAME)
        with pytest.raises(PortTaken, match=f"Port {server.port} on 127.0.0.1 is taken"):
            await second.start()


async def test_an_address_that_is_not_ours_is_named() -> None:
    server = Server(EchoConfig(host="192.0.2.1"))
    with pytest.raises(PortTaken, match=r"Nobody can listen on port 0 of 192\.0\.2\.1"):
        await server.start()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small authority with a certificate for localhost and one for a caller."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name in ("server", "caller"):
        extension = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key")
        openssl(
            "req",
            "-x509",
            *new,
            *signed_by,
            *extension,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-subj",
            f"/CN={name}",
        )
    return folder


def secured(keys: Path, *, mutual: bool) -> EchoConfig:
    return EchoConfig(
        tls_certificate_file=keys / "server.pem",
        tls_key_file=keys / "server.key",
        tls_client_ca_file=keys / "ca.pem" if mutual else None,
    )


async def seq_over_tls(server: Server, keys: Path, *, as_caller: bool) -> int:
    pair = ((keys / "caller.key").read_bytes(), (keys / "caller.pem").read_bytes()) if as_caller else (None, None)
    credentials = grpc.ssl_channel_credentials((keys / "ca.pem").read_bytes(), *pair)
    async with grpc.aio.secure_channel(server.address, credentials) as channel:
        call = Stub(channel).Decode()
        await call.write(Request(seq=3))
        answer = await call.read()
        call.cancel()
        return int(answer.seq)


async def test_with_a_certificate_the_port_speaks_tls(keys: Path) -> None:
    async with serving(Servicer(echo), secured(keys, mutual=False)) as (server, plain):
        assert await seq_over_tls(server, keys, as_caller=False) == 3
        assert (await failed(Stub(plain).Decode())).code() is grpc.StatusCode.UNAVAILABLE


async def test_with_an_authority_only_its_callers_get_in(keys: Path) -> None:
    async with serving(Servicer(echo), secured(keys, mutual=True)) as (server, _):
        assert await seq_over_tls(server, keys, as_caller=True) == 3
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await seq_over_tls(server, keys, as_caller=False)
