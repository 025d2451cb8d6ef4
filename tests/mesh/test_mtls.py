"""A mesh in which everybody shows a certificate: strangers, the expired and the greedy are refused, others speak on."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc

from common.stream import FinishReason
from services.gateway.access.tls import StageTls
from services.gateway.clients import Stages
from tests.edges import gateway, serving
from tests.fakes import speak, tone
from tests.gateway.access.tokens import SECRET, Authority, Pair, token
from tests.gateway.caller import Caller, Stub, reason_of
from tests.mesh.processes import ROOT, end, read_ready_lines

TEXT = "An unmistakable sentence about marmalade."
KEY = "a-long-and-random-key-of-ada"
CodecStub: Any = codec_pb2_grpc.CodecServiceStub


@dataclass
class Mesh:
    """A gateway above a talker and a codec; all of them trust one authority."""

    authority: Authority
    gateway: str
    codec: str
    http: str

    def channel(self, address: str, pair: Pair | None) -> grpc.aio.Channel:
        """As who shows that certificate, or none."""
        shown = (None, None) if pair is None else (pair.key.read_bytes(), pair.certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials(self.authority.file.read_bytes(), *shown)
        return grpc.aio.secure_channel(address, credentials, options=(("grpc.ssl_target_name_override", "localhost"),))


def served_by(authority: Authority, name: str) -> dict[str, Any]:
    pair = authority.signed(name)
    files = {"tls_certificate_file": pair.certificate, "tls_key_file": pair.key}
    return {**files, "tls_client_ca_file": authority.file}


@asynccontextmanager
async def mesh(tmp_path: Path, *, shown: Pair | None = None, **settings: Any) -> AsyncIterator[Mesh]:
    """`shown`: what the gateway shows to the stages."""
    authority = Authority(tmp_path)
    shown = shown or authority.signed("gateway-client")
    async with (
        serving("tts_lm", **served_by(authority, "tts_lm")) as talker,
        serving("codec", **served_by(authority, "codec")) as codec,
        gateway(
            tts_lm_address=talker.address,
            codec_address=codec.address,
            stage_ca_file=authority.file,
            stage_certificate_file=shown.certificate,
            stage_key_file=shown.key,
            stage_name="localhost",
            **served_by(authority, "gateway"),
            **settings,
        ) as server,
    ):
        yield Mesh(authority, server.address, codec.address, server.announcement.get("http", ""))


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


async def refused(channel: grpc.aio.Channel, **call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await Stub(channel).Synthesize(**call).read()
    return error.value.code()


async def test_speech_passes_where_everybody_shows_a_certificate(tmp_path: Path) -> None:
    async with mesh(tmp_path, http=False) as them, them.channel(them.gateway, them.authority.signed("ada")) as channel:
        caller = Caller(Stub(channel).Synthesize())
        await caller.say(TEXT)
        assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()


async def test_strangers_and_the_expired_are_refused_while_others_speak_on(tmp_path: Path) -> None:
    async with mesh(tmp_path, http=False) as them, them.channel(them.gateway, them.authority.signed("ada")) as channel:
        caller = Caller(Stub(channel).Synthesize())
        await caller.start()
        await caller.text(TEXT)
        await caller.heard(1)
        strangers = [
            Authority(tmp_path, "stranger").signed("ada"),
            them.authority.signed("late", expired=True),
            None,
        ]
        for pair in strangers:
            for address in (them.gateway, them.codec):
                async with them.channel(address, pair) as strange:
                    with pytest.raises(grpc.aio.AioRpcError) as error:
                        await CodecStub(strange).GetCodec(codec_pb2.GetCodecRequest())
                    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()


async def test_a_gateway_that_shows_no_certificate_of_ours_gets_no_speech(tmp_path: Path) -> None:
    strange = Authority(tmp_path, "stranger").signed("gateway")
    async with (
        mesh(tmp_path, shown=strange, connect_timeout_s=0.2, http=False) as them,
        them.channel(them.gateway, them.authority.signed("ada")) as channel,
    ):
        caller = Caller(Stub(channel).Synthesize())
        ended = await caller.say(TEXT)
        assert (caller.reason, reason_of(ended)) == (FinishReason.FAILED, "DEPENDENCY_DOWN")


async def test_an_expired_token_and_a_flooded_key_are_refused_and_logged_and_others_speak(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: Any = {"api_keys": f"flooder={KEY},ada={KEY}-ada", "key_calls_per_minute": 5, "jwt_secret": SECRET}
    expired = token(exp=time.time() - 60)
    with caplog.at_level(logging.DEBUG):
        async with (
            mesh(tmp_path, http=False, **settings) as them,
            them.channel(them.gateway, them.authority.signed("ada")) as channel,
        ):
            assert await refused(channel, metadata=bearer(expired)) is grpc.StatusCode.UNAUTHENTICATED
            codes = await asyncio.gather(*(_flood(channel) for _ in range(40)))
            assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 35
            caller = Caller(Stub(channel).Synthesize(metadata=bearer(f"{KEY}-ada")))
            await caller.say(TEXT)
            assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()
    told = [record.__dict__ for record in caplog.records if record.message == "refused"]
    assert {(one["caller"], one["why"]) for one in told} == {("", "expired"), ("flooder", "calls")}
    logged = " ".join(str(record.__dict__) for record in caplog.records)
    for secret in (KEY, SECRET, expired, "marmalade"):
        assert secret not in logged


async def _flood(channel: grpc.aio.Channel) -> grpc.StatusCode | None:
    call = Stub(channel).Synthesize(metadata=bearer(KEY))
    await call.done_writing()
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


def _started(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as sink:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=sink)


async def test_a_refused_certificate_stands_in_the_log_of_who_refused_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.signed("codec")
    files = ["--tls-certificate-file", str(pair.certificate), "--tls-key-file", str(pair.key)]
    files += ["--tls-client-ca-file", str(authority.file)]
    command = [sys.executable, "-m", "tests.fakes", "codec", "--port", "0", "--no-metrics", *files]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
    environment.pop("GRPC_VERBOSITY", None)
    log = tmp_path / "log"
    process = await asyncio.to_thread(_started, command, environment, log)
    try:
        address = (await asyncio.to_thread(read_ready_lines, process, 1, 60.0))["codec"]["address"]
        them = Mesh(authority, "", address, "")
        async with them.channel(address, Authority(tmp_path, "stranger").signed("eve")) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await CodecStub(channel).GetCodec(codec_pb2.GetCodecRequest())
        async with them.channel(address, authority.signed("gateway")) as channel:
            assert (await CodecStub(channel).GetCodec(codec_pb2.GetCodecRequest())).codebook_count > 0
    finally:
        await asyncio.to_thread(end, process)
        assert process.stdout is not None
        process.stdout.close()
    assert "CERTIFICATE_VERIFY_FAILED" in log.read_text()


async def test_every_stage_is_reached_with_the_certificate_and_none_without(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.signed("gateway")
    tls = StageTls(authority.file.read_bytes(), pair.certificate.read_bytes(), pair.key.read_bytes(), "localhost")
    async with (
        serving("brain", **served_by(authority, "brain")) as brain,
        serving("tts_lm", **served_by(authority, "tts_lm")) as talker,
        serving("codec", **served_by(authority, "codec")) as codec,
    ):
        for shown, is_up in ((tls, True), (None, False)):
            stages = Stages(talker.address, codec.address, brain_address=brain.address, tls=shown)
            await stages.look()
            assert (stages.brain.is_up, stages.tts_lm.is_up, stages.codec.is_up) == (is_up,) * 3
            await stages.close()
