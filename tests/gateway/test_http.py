"""The HTTP side, as OpenAI's own client and others see it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import av
import numpy as np
import openai
import pytest

from common.errors import NotReady, Overloaded
from services.gateway.audio_files import FORMATS
from services.gateway.config import GatewayConfig
from services.gateway.server import Gateway
from tests.edges import gateway
from tests.fakes import Refusing, ToneCodec, ToneTtsLm, speak, tone
from tests.gateway.caller import until

TEXT = "The quick brown fox jumps over the lazy dog."


def samples(text: str = TEXT, seed: int = 5, voice: str = "tone") -> Any:
    return tone(speak(text, seed, voice))[0]


@asynccontextmanager
async def served(talker: Any = None, codec: Any = None, **settings: Any) -> AsyncIterator[str]:
    """The address of a gateway's HTTP side over fakes."""
    async with gateway(talker, codec, **settings) as server:
        yield server.announcement["http"]


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@asynccontextmanager
async def posted(address: str, **body: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    body = {"model": "tts-1", "voice": "default", "input": TEXT, "seed": 5, **body}
    async with aiohttp.ClientSession() as session, session.post(f"{address}/v1/audio/speech", json=body) as response:
        yield response


def decoded(file: bytes) -> tuple[Any, int]:
    """The samples of an audio file, and their rate."""
    with av.open(io.BytesIO(file)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("s16", "mono", 24000)
        frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]), int(stream.rate or 0)


def likeness(heard: Any, said: Any) -> float:
    """Correlation at the best delay, up to 100 ms."""
    size = min(len(heard), len(said)) - 2400
    said = said[:size].astype(float)
    best = 0.0
    for delay in range(2400):
        piece = heard[delay : delay + size].astype(float)
        best = max(best, float(np.corrcoef(piece[::7], said[::7])[0, 1]))
    return best


@pytest.mark.parametrize("form", FORMATS)
async def test_the_official_client_hears_the_speech_in_every_format(form: Any) -> None:
    async with served() as address, client_of(address) as client:
        spoken = await client.audio.speech.create(
            model="tts-1", voice="Tone", input=TEXT, response_format=form, extra_body={"seed": 5}
        )
        if form == "pcm":
            assert spoken.content == samples().tobytes()
            return
        heard, _ = decoded(spoken.content)
        assert len(heard) == pytest.approx(len(samples()), abs=2400)
        assert likeness(heard, samples()) > (0.999 if form in ("wav", "flac") else 0.7)


async def test_the_official_client_streams_sound_before_the_speech_is_over() -> None:
    talker = ToneTtsLm(step_s=0.01)
    async with served(talker) as address, client_of(address) as client:
        request = client.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts", voice="tone", input=TEXT, response_format="wav", instructions="calmly"
        )
        async with request as response:
            pieces = aiter(response.iter_bytes(4096))
            first = await anext(pieces)
            assert first[:4] == b"RIFF"
            assert talker.pool.free_count < talker.pool.total, "the first bytes came after the speech was over"
            rest = [piece async for piece in pieces]
        assert sum(map(len, [first, *rest])) == 44 + 2 * len(samples())


async def test_the_official_client_reads_server_sent_events() -> None:
    async with served() as address, client_of(address) as client:
        request = client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="tone", input=TEXT, response_format="pcm", stream_format="sse", extra_body={"seed": 5}
        )
        async with request as response:
            lines = [line async for line in response.iter_lines() if line]
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert [event["type"] for event in events] == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.done"]
        sound = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
        assert sound == samples().tobytes()
        frames = len(speak(TEXT))
        usage = {"input_tokens": len(TEXT), "output_tokens": frames, "total_tokens": len(TEXT) + frames}
        assert (events[-1]["usage"], events[-1]["finish_reason"]) == (usage, "COMPLETED")


async def test_a_stock_voice_is_mapped_by_configuration_or_refused_with_the_list_of_ours() -> None:
    async with served(voice_aliases={"alloy": "bell"}) as address, client_of(address) as client:
        spoken = await client.audio.speech.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="pcm", extra_body={"seed": 5}
        )
        assert spoken.content == samples(voice="bell").tobytes()
        with pytest.raises(openai.BadRequestError, match=r"no voice 'nova' here\. There are: default, tone, bell"):
            await client.audio.speech.create(model="tts-1", voice="nova", input=TEXT)


REFUSALS = [
    ({"speed": 1.5}, 400, "speed", "unsupported_value"),
    ({"input": ""}, 400, "input", "invalid_value"),
    ({"input": "x" * 4097}, 400, "input", "string_too_long"),
    ({"input": None}, 400, "input", "missing_required_parameter"),
    ({"input": 3}, 400, "input", "invalid_type"),
    ({"input": "\ud800"}, 400, "input", "invalid_value"),
    ({"voice": None}, 400, "voice", "missing_required_parameter"),
    ({"model": "whisper-1"}, 404, "model", "model_not_found"),
    ({"response_format": "midi"}, 400, "response_format", "invalid_value"),
    ({"stream_format": "smoke"}, 400, "stream_format", "invalid_value"),
    ({"seed": -1}, 400, "seed", "invalid_value"),
    ({"loudness": 11}, 400, "loudness", "unknown_parameter"),
    ({"language": "klingon"}, 404, None, "unknown_name"),
    ({"voice": {"id": "voice_1234"}}, 404, None, "unknown_name"),
]


@pytest.mark.parametrize(("body", "status", "param", "code"), REFUSALS)
async def test_what_cannot_be_spoken_is_refused_in_the_shape_of_openais_errors(
    body: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    async with served() as address, posted(address, **body) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"], error["code"]) == (status, param, code)
        assert error["message"]


@pytest.mark.parametrize(("fault", "status"), [(Overloaded("full", retry_after_s=3), 429), (NotReady("no"), 503)])
async def test_a_fault_before_the_first_sound_is_a_status(fault: Any, status: int) -> None:
    talker = Refusing(ToneTtsLm(), fault)
    async with served(talker, connect_timeout_s=0.1) as address, posted(address) as response:
        assert response.status == status
        assert response.headers.get("Retry-After") == ("3" if status == 429 else None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
async def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with (
        served() as address,
        aiohttp.ClientSession() as session,
        session.post(f"{address}/v1/audio/speech", data=body, headers=headers) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_a_body_that_a_foreign_page_could_send_unasked_is_refused() -> None:
    headers = {"Content-Type": "text/plain"}
    async with (
        served() as address,
        aiohttp.ClientSession() as session,
        session.post(f"{address}/v1/audio/speech", data=b"{}", headers=headers) as response,
    ):
        assert response.status == 415


async def test_a_client_that_disconnects_stops_both_stages() -> None:
    talker, codec = ToneTtsLm(step_s=0.01), ToneCodec()
    async with served(talker, codec) as address:
        async with posted(address, response_format="pcm") as response:
            await response.content.readexactly(100)
            assert talker.pool.free_count < talker.pool.total
        await until(lambda: talker.pool.free_count == talker.pool.total)
        await until(lambda: codec.pool.free_count == codec.pool.total)


class Breaking(ToneCodec):
    """Takes eight frames, then nothing more from anybody."""

    is_broken = False

    def submit(self, request: Any) -> Any:
        if self.is_broken:
            raise Overloaded("no room")
        utterance = super().submit(request)
        feed = utterance.feed

        def refuse_later(frames: Any) -> None:
            if utterance._frame_count > 8:
                self.is_broken = True
                raise Overloaded("no room")
            feed(frames)

        utterance.feed = refuse_later  # type: ignore[method-assign]
        return utterance


async def test_sound_that_breaks_off_never_looks_complete() -> None:
    async with (
        served(ToneTtsLm(step_s=0.002), Breaking(), resume_timeout_s=0.1, full_timeout_s=0.1) as address,
        posted(address, response_format="pcm") as response,
    ):
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_events_that_break_off_say_so() -> None:
    async with (
        served(ToneTtsLm(step_s=0.002), Breaking(), resume_timeout_s=0.1, full_timeout_s=0.1) as address,
        posted(address, response_format="pcm", stream_format="sse") as response,
    ):
        last = json.loads((await response.read()).strip().split(b"\n\n")[-1].removeprefix(b"data: "))
        assert (last["type"], last["error"]["code"]) == ("error", "no_slot")


async def test_more_than_the_cap_is_refused_at_once() -> None:
    async with (
        served(ToneTtsLm(step_s=0.02), max_streams=1) as address,
        posted(address, response_format="pcm") as response,
    ):
        await response.content.readexactly(100)
        async with posted(address) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (429, "no_slot")


async def test_voices_models_and_health_are_told() -> None:
    async with served() as address, aiohttp.ClientSession(address) as session, client_of(address) as client:
        async with session.get("/v1/audio/voices") as response:
            assert [voice["name"] for voice in (await response.json())["voices"]] == ["tone", "bell"]
        assert [model.id async for model in client.models.list()] == ["tone"]
        assert (await client.models.retrieve("tone")).owned_by == "voicemesh"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")
        for path in ("/healthz", "/readyz"):
            async with session.get(path) as response:
                assert response.status == 200
        async with session.get("/nothing") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_url")


async def test_a_gateway_without_stages_is_alive_and_not_ready() -> None:
    async with served(tts_lm_address="127.0.0.1:9") as address, aiohttp.ClientSession(address) as session:
        async with session.get("/healthz") as response:
            assert response.status == 200
        async with session.get("/readyz") as response:
            assert (response.status, (await response.json())["tts_lm"]) == (503, False)


# The WebSocket.


@asynccontextmanager
async def socket(address: str, **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession(address, headers=headers) as session,
        session.ws_connect("/v1/audio/speech/stream") as it,
    ):
        yield it


async def heard(it: aiohttp.ClientWebSocketResponse) -> tuple[dict[str, Any], bytes]:
    """The next message that is no sound, and the sound before it."""
    pcm = b""
    while True:
        message = await it.receive_json()
        if message["type"] != "audio":
            return message, pcm
        piece = await it.receive_bytes()
        assert (message["first_sample_offset"] * 2, message["sample_count"] * 2) == (len(pcm), len(piece))
        pcm += piece


async def test_a_socket_speaks_text_as_it_comes() -> None:
    async with served() as address, socket(address) as it:
        await it.send_json({"type": "start", "voice": "tone", "seed": 5})
        assert (await it.receive_json())["type"] == "started"
        await it.send_json({"type": "text", "text": TEXT[:1]})
        assert (await it.receive_json())["type"] == "audio"
        first = await it.receive_bytes()
        await it.send_json({"type": "text", "text": TEXT[1:]})
        await it.send_json({"type": "flush"})
        pcm = first
        while (message := await it.receive_json())["type"] == "audio":
            pcm += await it.receive_bytes()
        assert (message["type"], message["reason"], pcm) == ("ended", "COMPLETED", samples().tobytes())


async def test_a_socket_stops_resets_and_speaks_again() -> None:
    async with served(ToneTtsLm(step_s=0.01)) as address, socket(address) as it:
        await it.send_json({"type": "start", "seed": 5})
        await it.send_json({"type": "text", "text": TEXT})
        await it.receive_json()
        await it.send_json({"type": "stop"})
        assert (await heard(it))[0]["reason"] == "CANCELLED"
        await it.send_json({"type": "reset"})
        assert (await heard(it))[0]["type"] == "reset_done"
        await it.send_json({"type": "start", "seed": 5})
        await it.send_json({"type": "text", "text": "hi"})
        await it.send_json({"type": "flush"})
        assert (await heard(it))[0]["epoch"] == 1
        end, pcm = await heard(it)
        assert (end["reason"], pcm) == ("COMPLETED", samples("hi").tobytes())


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "[]",
        '{"type": "shout"}',
        '{"type": "text", "text": 3}',
        '{"type": "text", "text": "before start"}',
        '{"type": "start", "voice": "nova"}',
        '{"type": "start", "format": "midi"}',
        '{"type": "start", "colour": "red"}',
        '{"type": "start", "seed": -1}',
        '{"type": "start", "epoch": -1}',
        '{"type": "start", "text_timeout_s": 1e300}',
        '{"type": "credit"}',
        '{"type": "text", "text": "\\ud800"}',
    ],
)
async def test_a_socket_says_what_is_wrong_and_closes(message: str) -> None:
    async with served() as address, socket(address) as it:
        await it.send_str(message)
        said = await it.receive_json()
        assert (said["type"], bool(said["error"]["message"])) == ("error", True)
        assert (await it.receive()).type is aiohttp.WSMsgType.CLOSE
        assert it.close_code == 1008


async def test_a_foreign_page_cannot_open_a_socket() -> None:
    async with served() as address:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with socket(address, Origin="https://elsewhere.example"):
                pass
        async with socket(address, Origin=address) as it:
            assert not it.closed


async def test_a_socket_that_closes_stops_both_stages() -> None:
    talker, codec = ToneTtsLm(step_s=0.01), ToneCodec()
    async with served(talker, codec) as address:
        async with socket(address) as it:
            await it.send_json({"type": "start"})
            await it.send_json({"type": "text", "text": TEXT})
            await heard(it)
            await it.receive_json()
        await until(lambda: talker.pool.free_count == talker.pool.total)
        await until(lambda: codec.pool.free_count == codec.pool.total)


def test_the_http_port_is_the_usual_one_unless_any_port_will_do() -> None:
    assert GatewayConfig(port=50050).http_port == 8080
    assert GatewayConfig(port=0).http_port == 0
    assert GatewayConfig(port=0, http_port=81).http_port == 81
    assert Gateway(GatewayConfig(port=0)).http is None
