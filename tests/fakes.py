"""Honest fakes of the engines, behind the same Protocols: every rule of a stream holds, only the model is a toy.

`ToneTtsLm` turns each character (or id) into one to three frames whose codes say which token of the text they speak,
so a test can read off the frames what was said. `ToneCodec` turns frames into tones whose phase depends on every frame
before, so that a lost, doubled or reordered frame changes all samples after it. `ScriptedBrain` answers what it was
told to.

In memory they are used as they are; `python -m tests.fakes tts_lm|codec|brain --port 0` puts one behind its real edge,
`--step-s 0.01` makes each step last, `--slots 2` makes them scarce.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.errors import InvalidRequest, MeshError, OutOfOrder, UnknownName
from common.slots import Lease, SlotPool
from common.stream import FinishReason
from services.brain import types as brain
from services.codec import types as codec
from services.tts_lm import types as tts_lm

CODEBOOKS = 16
CODEBOOK_SIZE = 2048
SAMPLES_PER_FRAME = 1920
SAMPLE_RATE_HZ = 24000
MAX_FRAMES = 4096
VOICES = ("tone", "bell")
LANGUAGES = ("english", "chinese", "german")


# What the codes say.


def frames_of_token(token: int) -> int:
    """How many frames a token takes: one to three."""
    return 1 + token % 3


def frame_of(position: int, token: int, part: int, seed: int, voice: str) -> tuple[int, ...]:
    """Codes 0 and 1: which token; 2 and 3: the token itself; 4: which of its frames; the rest: the seed's."""
    noise = hashlib.blake2b(f"{seed}/{voice}/{position}/{part}".encode(), digest_size=22).digest()
    rest = (int.from_bytes(noise[i : i + 2], "big") % CODEBOOK_SIZE for i in range(0, 22, 2))
    return (position % 2048, position // 2048, token % 2048, token // 2048, part, *rest)


def text_of(frames: Sequence[Sequence[int]]) -> str:
    """The text that frames speak. AssertionError when a token is missing, doubled or cut short."""
    expected = iter(_spoken_parts(frames))
    text: list[str] = []
    for frame in frames:
        position, token, part = frame[0] + 2048 * frame[1], frame[2] + 2048 * frame[3], frame[4]
        assert (position, part) == next(expected), f"token {position}, part {part} stands in the wrong place"
        if part == 0:
            text.append(chr(token))
    return "".join(text)


def _spoken_parts(frames: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    while len(parts) < len(frames):
        frame = frames[len(parts)]
        position = parts[-1][0] + 1 if parts else 0
        parts += [(position, part) for part in range(frames_of_token(frame[2] + 2048 * frame[3]))]
    return parts


def speak(text: str, seed: int = 0, voice: str = VOICES[0]) -> list[tuple[int, ...]]:
    """All frames of a text, as `ToneTtsLm` makes them."""
    tokens = [ord(character) for character in text]
    return [frame_of(p, t, part, seed, voice) for p, t in enumerate(tokens) for part in range(frames_of_token(t))]


_SINE = np.round(8000 * np.sin(2 * np.pi * np.arange(65536) / 65536)).astype(np.int16)


def tone(frames: Sequence[Sequence[int]], phase: int = 0) -> tuple[np.ndarray[Any, Any], int]:
    """Frames → int16 samples [T * 1920] and the phase in 1/2^32 turns with which the next frame goes on."""
    pieces = []
    for frame in frames:
        hertz = 200 + sum((i + 1) * code for i, code in enumerate(frame)) % 2000
        turns = phase + (hertz << 32) // SAMPLE_RATE_HZ * np.arange(SAMPLES_PER_FRAME + 1, dtype=np.int64)
        pieces.append(_SINE[(turns[:-1] % (1 << 32)) >> 16])
        phase = int(turns[-1] % (1 << 32))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16), phase


# The speech model.


class _Fake:
    """What every fake utterance has: a slot, input that comes later, an end that comes once."""

    def __init__(self, pool: SlotPool, step_s: float) -> None:
        self._pool = pool
        self._lease: Lease | None = pool.lease()
        self._step_s = step_s
        self._news = asyncio.Event()
        self._stop = asyncio.Event()
        self.is_flushed = False

    @property
    def is_cancelled(self) -> bool:
        return self._stop.is_set()

    def cancel(self) -> None:
        self._stop.set()
        self._release()
        self._news.set()

    def _release(self) -> None:
        if self._lease is not None:
            self._pool.release(self._lease)
            self._lease = None

    async def _wait(self, timeout_s: float | None = None) -> bool:
        """Until something was said. False when nothing was said for so long."""
        self._news.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _step(self) -> None:
        """One step of work; a cancel cuts it short."""
        if self._step_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._step_s):
                    await self._stop.wait()


class ToneUtterance(_Fake):
    """One utterance of `ToneTtsLm`."""

    def __init__(self, request: tts_lm.UtteranceRequest, pool: SlotPool, step_s: float) -> None:
        super().__init__(pool, step_s)
        self._request = request
        self._seed = 0 if request.sampling.greedy else (request.sampling.seed or 0)
        self._voice = request.voice if isinstance(request.voice, str) else VOICES[0]
        self._tokens: list[int] = []
        self._kind: type | None = None
        self._allowed = request.max_lead_frames
        self._made = len(request.resume.codes) // CODEBOOKS if request.resume else 0
        self._spoken = [0]  # frames that the text holds up to each token
        self._lead_base = self._made

    def feed(self, item: tts_lm.TextItem) -> None:
        kind = str if isinstance(item, str) else list
        if self.is_flushed:
            raise OutOfOrder("text after flush")
        if self._kind not in (None, kind):
            raise InvalidRequest("one utterance holds strings or ids, never both")
        self._kind = kind
        tokens = [ord(character) for character in item] if isinstance(item, str) else list(item)
        if any(not 0 <= token < 2048 * 2048 for token in tokens):
            raise InvalidRequest("an id is out of range")
        for token in tokens:
            self._tokens.append(token)
            self._spoken.append(self._spoken[-1] + frames_of_token(token))
        self._news.set()

    def flush(self) -> None:
        self.is_flushed = True
        self._news.set()

    def credit(self, frames: int) -> None:
        if frames < 1:
            raise InvalidRequest("credit is at least one frame")
        self._allowed = frames + (self._made - self._lead_base if self._allowed is None else self._allowed)
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[tts_lm.Event]:
        try:
            yield tts_lm.Started(self._seed, prefix_cache_hit=False)
            sizes = list(self._request.packet_ramp)
            reason = None
            while reason is None:
                packet, reason = await self._packet(sizes[0])
                if packet and not self.is_cancelled:
                    sizes = sizes[1:] or sizes
                    offset = self._read if self._kind is str else None
                    yield tts_lm.FrameBatch(self._made - len(packet), tuple(packet), self._read, time.time(), offset)
            yield self._ended(FinishReason.CANCELLED if self.is_cancelled else reason)
        finally:
            self._release()

    async def _packet(self, size: int) -> tuple[list[tuple[int, ...]], FinishReason | None]:
        """Up to `size` frames, fewer where it would have to wait for somebody; and why there will be no more, if so."""
        packet: list[tuple[int, ...]] = []
        while len(packet) < size:
            reason = self._over()
            if reason is not None:
                return packet, reason
            if self._can_speak():
                await self._step()
                packet.append(self._next())
            elif packet:
                break
            elif not await self._wait(None if self.is_flushed else self._request.text_timeout_s):
                return packet, FinishReason.TEXT_TIMEOUT
        return packet, None

    def _over(self) -> FinishReason | None:
        if self.is_cancelled:
            return FinishReason.CANCELLED
        if self.is_flushed and self._made >= self._spoken[-1]:
            return FinishReason.COMPLETED
        if self._made - self._lead_base >= (self._request.max_frames or MAX_FRAMES):
            return FinishReason.LENGTH
        return None

    def _can_speak(self) -> bool:
        has_text = self._made < self._spoken[-1] and (self.is_flushed or self._request.layout == "streaming")
        return has_text and (self._allowed is None or self._made - self._lead_base < self._allowed)

    @property
    def _read(self) -> int:
        """Tokens that have been begun."""
        return sum(begin < self._made for begin in self._spoken[:-1])

    def _next(self) -> tuple[int, ...]:
        position = max(i for i, begin in enumerate(self._spoken[:-1]) if begin <= self._made)
        part = self._made - self._spoken[position]
        self._made += 1
        return frame_of(position, self._tokens[position], part, self._seed, self._voice)

    def _ended(self, reason: FinishReason) -> tts_lm.Ended:
        count = self._made - self._lead_base
        return tts_lm.Ended(reason, None, self._read, count, 0.0, count * self._step_s)


class ToneTtsLm:
    """A `services.tts_lm.types.Engine` whose text tokens are characters."""

    def __init__(
        self, slot_count: int = 8, step_s: float = 0.0, steady_characters: int = 0, speakable_characters: str = ""
    ) -> None:
        self.pool = SlotPool(slot_count)
        self._step_s = step_s
        self._steady_characters = steady_characters
        self._speakable_characters = speakable_characters

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def submit(self, request: tts_lm.UtteranceRequest) -> ToneUtterance:
        if isinstance(request.voice, str):
            if request.voice.lower() not in VOICES:
                raise UnknownName(f"no voice {request.voice!r}; there are {', '.join(VOICES)}")
            request = replace(request, voice=request.voice.lower())
        if request.language.lower() not in ("", "auto", *LANGUAGES):
            raise UnknownName(f"no language {request.language!r}")
        return ToneUtterance(request, self.pool, self._step_s)

    def info(self) -> tts_lm.ModelInfo:
        return tts_lm.ModelInfo(
            model_id="tone",
            model_type="custom_voice",
            frame_rate_hz=SAMPLE_RATE_HZ / SAMPLES_PER_FRAME,
            samples_per_frame=SAMPLES_PER_FRAME,
            sample_rate_hz=SAMPLE_RATE_HZ,
            codebook_count=CODEBOOKS,
            codebook_size=CODEBOOK_SIZE,
            tokenizer_fingerprint="characters",
            languages=LANGUAGES,
            supports_instruct=True,
            supports_clone=True,
            slot_count=self.pool.total,
            free_slot_count=self.pool.free_count,
            dtype="float32",
            device="cpu",
            steady_character_count=self._steady_characters,
            speakable_characters=self._speakable_characters,
        )

    def voices(self) -> tuple[tts_lm.VoiceInfo, ...]:
        return tuple(tts_lm.VoiceInfo(name, "english", "", "a toy") for name in VOICES)


# The codec.


class ToneDecoding(_Fake):
    """One utterance of `ToneCodec`."""

    def __init__(self, spec: codec.DecodeSpec, pool: SlotPool, step_s: float) -> None:
        super().__init__(pool, step_s)
        self._is_float = spec.encoding is codec.Encoding.PCM_F32LE
        self._waiting: list[Sequence[int]] = []
        self._frame_count = 0
        self.phase = 0
        if isinstance(spec.continue_from, ToneDecoding):
            self.phase = spec.continue_from.phase
        self.phase = tone(spec.prime_codes, self.phase)[1]

    def feed(self, frames: Sequence[Sequence[int]]) -> None:
        if self.is_flushed:
            raise OutOfOrder("frames after flush")
        for frame in frames:
            if len(frame) != CODEBOOKS or not all(0 <= code < CODEBOOK_SIZE for code in frame):
                raise InvalidRequest("a frame is 16 codes below 2048")
        self._waiting += frames
        self._news.set()

    def flush(self) -> None:
        self.is_flushed = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[codec.Event]:
        try:
            yield codec.Started()
            while not self.is_cancelled and not (self.is_flushed and not self._waiting):
                if not self._waiting:
                    await self._wait()
                    continue
                await self._step()
                batch = self._decode()
                if not self.is_cancelled:
                    yield batch
            reason = FinishReason.CANCELLED if self.is_cancelled else FinishReason.COMPLETED
            count = self._frame_count
            first_s = 0.0 if count else None
            yield codec.Ended(reason, None, count, count * SAMPLES_PER_FRAME, first_s, count * self._step_s)
        finally:
            self._release()

    def _decode(self) -> codec.AudioBatch:
        frames, self._waiting = self._waiting[:8], self._waiting[8:]
        samples, self.phase = tone(frames, self.phase)
        payload = (samples.astype(np.float32) / 32768 if self._is_float else samples).tobytes()
        first, self._frame_count = self._frame_count, self._frame_count + len(frames)
        return codec.AudioBatch(
            first * SAMPLES_PER_FRAME, len(samples), payload, first, len(frames), produced_time_s=time.time()
        )


class ToneCodec:
    """A `services.codec.types.Engine` without a network: 24 kHz, one channel, int16 or float32."""

    def __init__(self, slot_count: int = 16, step_s: float = 0.0) -> None:
        self.pool = SlotPool(slot_count)
        self._step_s = step_s

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def submit(self, request: codec.DecodeSpec) -> ToneDecoding:
        if request.encoding > codec.Encoding.PCM_F32LE or request.sample_rate_hz not in (0, SAMPLE_RATE_HZ):
            raise InvalidRequest("the toy makes 24 kHz PCM", reason="UNSUPPORTED")
        before = request.continue_from
        if isinstance(before, ToneDecoding) and before.is_cancelled:
            raise OutOfOrder("the utterance to continue was cancelled")
        return ToneDecoding(request, self.pool, self._step_s)

    async def encode(self, request: codec.EncodeSpec, payload: bytes) -> codec.EncodedVoice:
        if not payload:
            raise InvalidRequest("there is no audio")
        codes = tuple(tuple(payload[(i * 16 + q) % len(payload)] for q in range(CODEBOOKS)) for i in range(3))
        return codec.EncodedVoice(codes, (0.5,) * 4)

    def info(self) -> codec.CodecInfo:
        return codec.CodecInfo(
            frame_rate_hz=SAMPLE_RATE_HZ / SAMPLES_PER_FRAME,
            samples_per_frame=SAMPLES_PER_FRAME,
            sample_rate_hz=SAMPLE_RATE_HZ,
            codebook_count=CODEBOOKS,
            codebook_size=CODEBOOK_SIZE,
            supports_encode=True,
            slot_count=self.pool.total,
            free_slot_count=self.pool.free_count,
            dtype="float32",
            device="cpu",
        )


# The brain.

Line = str | brain.ToolCall
Script = Callable[[str], Sequence[Line]]
"""The person's words → pieces of the answer, and tools to be called between them."""


def echo(words: str) -> Sequence[Line]:
    """Says back what it heard, word by word."""
    return [word + " " for word in words.split()] or ["Pardon? "]


def rest_of(lines: Sequence[Line], said: str) -> list[Line]:
    """What is left of an answer of which `said` was said elsewhere, cut between its pieces."""
    left = list(lines)
    while said and left and isinstance(piece := left[0], str) and said.startswith(piece):
        said = said[len(piece) :]
        left.pop(0)
    return left


class ScriptedTurn(_Fake):
    """One turn of `ScriptedBrain`."""

    def __init__(self, request: brain.TurnRequest, script: Script, pool: SlotPool, step_s: float) -> None:
        super().__init__(pool, step_s)
        self._request = request
        self._script = script
        self._words = ""
        self._open_calls: set[str] = set()

    def feed_text(self, text: str) -> None:
        if self.is_flushed:
            raise OutOfOrder("text after finish")
        self._words += text

    def feed_audio(self, payload: bytes) -> None:
        raise InvalidRequest("the script cannot hear", reason="UNSUPPORTED")

    def tool_result(self, call_id: str, content: str, failed: bool = False) -> None:
        if call_id not in self._open_calls:
            raise OutOfOrder(f"no open call {call_id!r}")
        self._open_calls.remove(call_id)
        self._news.set()

    def finish(self) -> None:
        self.is_flushed = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[brain.Event]:
        said = 0
        try:
            yield brain.Started("script", "")
            while not self.is_flushed and not self.is_cancelled:
                await self._wait()
            limit = self._request.sampling.max_tokens
            lines = rest_of(self._script(self._words), self._request.partial_answer)
            while lines and not self.is_cancelled and said != limit:
                await self._step()
                if self.is_cancelled:
                    break
                line = lines.pop(0)
                if isinstance(line, str):
                    said += 1
                    yield brain.TextPiece(line, (), time.time())
                else:
                    self._open_calls.add(line.id)
                    yield brain.ToolCallRequest(line)
                    while self._open_calls and not self.is_cancelled:
                        await self._wait()
            reason = FinishReason.LENGTH if lines else FinishReason.COMPLETED
            if self.is_cancelled:
                reason = FinishReason.CANCELLED
            yield brain.Ended(reason, None, len(self._words), 0, said, None, said * self._step_s)
        finally:
            self._release()


class ScriptedBrain:
    """A `services.brain.types.Engine` that knows its answers beforehand."""

    def __init__(self, script: Script = echo, slot_count: int = 8, step_s: float = 0.0) -> None:
        self.pool = SlotPool(slot_count)
        self._script = script
        self._step_s = step_s
        self._closed = asyncio.Event()

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self._closed.set()

    def submit(self, request: brain.TurnRequest) -> ScriptedTurn:
        return ScriptedTurn(request, self._script, self.pool, self._step_s)

    def info(self) -> brain.BrainInfo:
        return brain.BrainInfo("script", "offline", "", False, True, self.pool.total, self.pool.free_count)

    async def readiness(self) -> AsyncIterator[bool]:
        yield True
        await self._closed.wait()


# An engine that only fails, for faults that the others never have.


@dataclass(frozen=True)
class Refusing:
    """Any engine, but `submit` raises."""

    engine: Any
    error: MeshError

    def submit(self, request: object) -> Any:
        raise self.error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


# Behind a real edge, as processes.


def main(arguments: Sequence[str]) -> int:
    """Serve one fake until told to stop: the service's own flags, and `--step-s` and `--slots`."""
    import argparse

    from common.config import load_or_exit
    from common.serving import Server, run_service
    from tests.edges import EDGES

    parser = argparse.ArgumentParser(prog="python -m tests.fakes", add_help=False)
    parser.add_argument("service", choices=sorted(EDGES))
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=8)
    given, rest = parser.parse_known_args(arguments)
    edge, config = EDGES[given.service], load_or_exit(EDGES[given.service].config, rest)

    def build(server: Server) -> Any:
        engine = edge.fake(slot_count=given.slots, step_s=given.step_s)
        edge.register(server, engine, config)
        return engine

    return run_service(config, build)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
