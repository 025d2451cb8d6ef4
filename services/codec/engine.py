"""The codec engine: admits utterances, leases slots, carries events back to the loop. Importable without torch.

The seam that edges and fakes share is `services.codec.types`, re-exported here. All work is done by the worker's thread
(decoding) and the encoder's (reference audio); this file decides who gets in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InvalidRequest, MeshError, NotReady, OutOfOrder, Overloaded
from common.observer import NOBODY, Observer
from common.stream import FinishReason
from services.codec.session import Session
from services.codec.sound import checked_format
from services.codec.types import (
    AudioBatch,
    CodecInfo,
    Codes,
    DecodeSpec,
    EncodedVoice,
    EncodeSpec,
    Encoding,
    Ended,
    Engine,
    EngineSettings,
    Event,
    Started,
    Utterance,
)
from services.codec.utterance import CodeRules, DecodeUtterance
from services.codec.worker import Worker

if TYPE_CHECKING:
    from services.codec.encoding import VoiceEncoder
    from services.codec.runner import Runner

__all__ = [
    "AudioBatch",
    "CodecInfo",
    "Codes",
    "DecodeSpec",
    "EncodeSpec",
    "EncodedVoice",
    "Encoding",
    "Ended",
    "Engine",
    "EngineSettings",
    "Event",
    "Started",
    "Utterance",
    "open_engine",
]

SOUND_THREADS = 2
SLOT_RETRY_S = 0.5
"""A slot is free again when someone's utterance ends; utterances are seconds long."""


def open_engine(settings: EngineSettings, observer: Observer = NOBODY) -> CodecEngine:
    """The real engine over a checkpoint; nothing is read before `start`. `observer` is told each step."""
    return CodecEngine(settings, observer)


class CodecEngine:
    def __init__(self, settings: EngineSettings, observer: Observer = NOBODY) -> None:
        self._settings = settings
        self._observer = observer
        self._free = list(range(settings.slot_count - 1, -1, -1))
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix="codec-sound") for _ in range(SOUND_THREADS)]
        self._next_lane = cycle(self._lanes)
        self._runner: Runner | None = None
        self._worker: Worker | None = None
        self._encoder: VoiceEncoder | None = None
        self._outbox: Outbox | None = None
        self.on_broken: Callable[[str], None] = _ignore
        """Told on the event loop, once, when the device has failed for good."""

    async def start(self) -> None:
        s = self._settings
        runner, self._encoder = await asyncio.to_thread(_load, s)
        self._runner = runner
        self._rules = CodeRules(runner.config.decoder.num_quantizers, runner.config.decoder.codebook_size)
        self._outbox = Outbox(asyncio.get_running_loop())
        self._worker = Worker(
            runner,
            slots=s.slot_count,
            parked=s.max_parked_states,
            primed=s.max_primed_voices,
            max_undelivered=s.max_queued_events,
            observer=self._observer,
            on_fault=partial(self._outbox.call, lambda fault: self.on_broken(str(fault))),
        )
        self._worker.start()

    def submit(self, request: DecodeSpec) -> Utterance:
        runner, worker, outbox = self._ready()
        config = runner.config
        form = checked_format(request.encoding, request.sample_rate_hz, request.channel_count, config.sample_rate_hz)
        self._check_prime(request)
        before = self._predecessor(request)
        waits = before is not None and before.reason is None
        if not waits and not self._free:
            raise Overloaded("Every slot is taken.", retry_after_s=SLOT_RETRY_S)
        utterance = DecodeUtterance(
            worker,
            self._rules,
            max_queued=self._settings.max_queued_frames,
            max_undelivered=self._settings.max_queued_events,
            ended=lambda: self._release(utterance),
        )
        plain = form.sample_rate_hz == config.sample_rate_hz and form.encoding is not Encoding.OPUS
        utterance.session = Session(
            form,
            config.sample_rate_hz,
            config.samples_per_frame,
            request.prime_codes,
            post=partial(outbox.post, utterance.deliver),
            undelivered=lambda: utterance.undelivered,
            wake=worker.wake,
            lane=None if plain else self._lane(),
        )
        if before is not None:
            before.follower = utterance
        if not waits:
            utterance.slot = self._free.pop()
        worker.open(utterance.session, utterance.slot, None if before is None else before.session)
        return utterance

    async def encode(self, request: EncodeSpec, payload: bytes) -> EncodedVoice:
        self._ready()
        if self._encoder is None:
            raise InvalidRequest("This codec has no encoder.", reason="UNSUPPORTED")
        return await self._encoder.encode(request, payload)

    def info(self) -> CodecInfo:
        runner, _, _ = self._ready()
        config = runner.config
        return CodecInfo(
            frame_rate_hz=config.sample_rate_hz / config.samples_per_frame,
            samples_per_frame=config.samples_per_frame,
            sample_rate_hz=config.sample_rate_hz,
            codebook_count=config.decoder.num_quantizers,
            codebook_size=config.decoder.codebook_size,
            supports_encode=self._encoder is not None,
            slot_count=self._settings.slot_count,
            free_slot_count=len(self._free),
            dtype=self._settings.dtype,
            device=self._settings.device,
        )

    async def close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
            await asyncio.to_thread(worker.join)
        for lane in self._lanes:
            await asyncio.to_thread(lane.shutdown)
        if self._encoder is not None:
            await self._encoder.close()

    def _ready(self) -> tuple[Runner, Worker, Outbox]:
        if self._runner is None or self._worker is None or self._outbox is None:
            raise NotReady("The codec is not running.")
        if self._worker.fault is not None:
            raise self._worker.fault
        return self._runner, self._worker, self._outbox

    def _check_prime(self, request: DecodeSpec) -> None:
        if request.prime_codes and request.continue_from is not None:
            raise InvalidRequest("An utterance is either primed or continued.")
        if len(request.prime_codes) > self._settings.max_prime_frames:
            raise InvalidRequest(f"At most {self._settings.max_prime_frames} reference frames, not more.")
        self._rules.check(request.prime_codes)

    def _predecessor(self, request: DecodeSpec) -> DecodeUtterance | None:
        before = request.continue_from
        if before is None:
            return None
        if not isinstance(before, DecodeUtterance):
            raise InvalidRequest("An utterance can continue only one of this engine.")
        if before.follower is not None:
            raise OutOfOrder("The utterance has been continued already.")
        if before.cancelled or before.reason not in (None, FinishReason.COMPLETED):
            raise OutOfOrder("The utterance to continue did not complete.")
        return before

    def _lane(self) -> Executor:
        return next(self._next_lane)

    def _release(self, utterance: DecodeUtterance) -> None:
        slot, utterance.slot = utterance.slot, None
        if slot is None:
            return
        follower = utterance.follower
        if follower is not None and follower.reason is None and follower.slot is None:
            follower.slot = slot
        else:
            self._free.append(slot)


class Outbox:
    """Events from any thread to the loop, in order, with one wake-up for all that have gathered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Callable[[Event], None], Event]] = deque()
        self._woken = False

    def post(self, deliver: Callable[[Event], None], event: Event) -> None:
        self._waiting.append((deliver, event))
        if not self._woken:
            self._woken = True
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._drain)

    def call(self, function: Callable[[MeshError], None], error: MeshError) -> None:
        """Call on the loop, behind the events that are waiting."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, error)

    def _drain(self) -> None:
        self._woken = False
        while self._waiting:
            deliver, event = self._waiting.popleft()
            deliver(event)


def _ignore(why: str) -> None:
    """Nobody has asked."""


def _load(settings: EngineSettings) -> tuple[Runner, VoiceEncoder | None]:
    """Torch comes in here."""
    from services.codec.encoding import load_voice_encoder
    from services.codec.reference_audio import Limits
    from services.codec.runner import Runner

    row_count = settings.slot_count + settings.max_parked_states + settings.max_primed_voices
    runner = Runner(
        Path(settings.model_dir),
        device=settings.device,
        dtype=settings.dtype,
        row_count=row_count,
        max_batch=settings.slot_count,
        max_frames=settings.max_frames_per_step,
        thread_count=settings.thread_count,
        compile_step=settings.compile_step,
    )
    runner.warm()
    if not settings.encode:
        return runner, None
    limits = Limits(settings.max_reference_s, settings.max_reference_bytes)
    return runner, load_voice_encoder(runner.config, limits=limits, max_cached=settings.max_cached_references)
