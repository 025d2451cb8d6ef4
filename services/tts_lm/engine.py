"""The talker's engine: admits utterances, hands them to its loop's thread, and turns what comes back into events.

Everything here runs on the event loop and never blocks; the device is another thread's. Importable without torch:
what opens a checkpoint is given in (see `load.py`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass

from common.errors import MeshError, NotReady
from common.observer import NOBODY, Observer
from common.slots import Lease, SlotPool
from common.stream import FinishReason
from services.tts_lm import commands as device
from services.tts_lm.admission import House, admit
from services.tts_lm.commands import Done, Frames
from services.tts_lm.loop import Loop, Publish
from services.tts_lm.model.config import ModelConfig
from services.tts_lm.model.prompt import offered_languages
from services.tts_lm.model.repertoire import Repertoire
from services.tts_lm.model.tokenizer import Tokenizer
from services.tts_lm.prefix import Prefix
from services.tts_lm.runner_protocol import Runner
from services.tts_lm.scheduler import Policy
from services.tts_lm.types import (
    CloneVoice,
    Ended,
    Engine,
    EngineOptions,
    Event,
    FrameBatch,
    ModelInfo,
    ResumePoint,
    SamplingParams,
    Started,
    TextItem,
    Utterance,
    UtteranceRequest,
    VoiceInfo,
)
from services.tts_lm.utterance import TalkerUtterance

__all__ = [
    "CloneVoice",
    "Ended",
    "Engine",
    "EngineOptions",
    "Event",
    "FrameBatch",
    "ModelInfo",
    "OpenModel",
    "ResumePoint",
    "SamplingParams",
    "Started",
    "TalkerEngine",
    "TextItem",
    "Utterance",
    "UtteranceRequest",
    "VoiceInfo",
]


PREFIX_SHARE = 4
"""Of the KV pool, one in so many pages may keep prefixes; running speech takes them back when it needs them."""
PRESET_PREFIXES = 16


@dataclass(frozen=True)
class OpenModel:
    """A loaded checkpoint, ready to run."""

    config: ModelConfig
    tokenizer: Tokenizer
    runner: Runner
    model_id: str
    dtype: str
    device: str
    max_positions: int
    repertoire: Repertoire | None = None


class TalkerEngine:
    """Implements `Engine` over any `Runner`. `open_model` is called on the engine's thread, and may take minutes."""

    def __init__(
        self, open_model: Callable[[], OpenModel], options: EngineOptions, observer: Observer = NOBODY
    ) -> None:
        self._open_model, self._options, self._observer = open_model, options, observer
        self._slots = SlotPool(options.slot_count)
        self._live: dict[int, TalkerUtterance] = {}
        self._model: OpenModel | None = None
        self._loop: Loop | None = None
        self._broken: MeshError | None = None
        self._thread: threading.Thread | None = None
        self.on_broken: Callable[[str], None] = _ignore
        """Told on the event loop, once, when the device has failed for good."""

    async def start(self) -> None:
        """Load and warm up; raises the `MeshError` that says why not."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        body = threading.Thread(target=self._body, args=(asyncio.get_running_loop(), ready), name="tts_lm-device")
        self._thread = body
        body.daemon = True  # a device call that never returns must not keep the process alive
        body.start()
        await ready

    def _body(self, events: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        try:
            model = self._open_model()
            self._model = model
            self._loop = self._open_loop(model, lambda batch: _call(events, self._deliver, batch))
        except Exception as error:  # the top of a thread: told to whoever awaits `start`
            _call(events, _fail, ready, error)
            return
        _call(events, _succeed, ready)
        try:
            self._loop.run()
        except Exception as error:  # the top of a thread: every utterance has been told, later ones are refused
            _call(events, self._break, error)

    def _open_loop(self, model: OpenModel, publish: Publish) -> Loop:
        options, runner = self._options, model.runner
        given, size = options.prefix_positions, runner.page_size
        pages = runner.page_count // PREFIX_SHARE if given is None else given // size
        policy = Policy(options.lead_ceiling_s, min(Policy.urgent_lead_s, options.lead_ceiling_s))
        loop = Loop(runner, publish, self._observer, policy=policy, prefix_pages=pages)
        loop.keep(self._preset_prefixes(model))
        return loop

    def _preset_prefixes(self, model: OpenModel) -> Iterator[Prefix]:
        """What utterances of the preset voices begin with, so that not even the first of each has to compute it."""
        if model.config.model_type == "base":
            return
        house = self._house(model)
        names: list[str | None] = [*model.config.speakers]
        for name in names[:PRESET_PREFIXES] or [None]:
            request = UtteranceRequest(voice=name)
            prefix = admit(request, model.config, model.tokenizer, house).sequence(Lease(0, 0)).prefix
            if prefix is not None:
                yield prefix

    def _break(self, error: Exception) -> None:
        """Refuse from now on, and end those whose start the thread did not live to see."""
        self._broken = NotReady(f"the device failed and this replica no longer serves: {error}")
        left = [utterance.sequence for utterance in self._live.values()]
        self._deliver([Done(sequence, FinishReason.FAILED, self._broken) for sequence in left])
        self.on_broken(str(self._broken))

    def submit(self, request: UtteranceRequest) -> Utterance:
        model, loop = self._ready()
        admitted = admit(request, model.config, model.tokenizer, self._house(model))
        # A frame lasts as long as a step may take: asking again sooner cannot find what is not there yet.
        lease = self._slots.lease(retry_after_s=1 / model.config.frame_rate_hz)
        sequence = admitted.sequence(lease)
        hit = sequence.prefix is not None and loop.prefixes.holds(sequence.prefix.key)
        most = self._options.max_text_characters
        utterance = TalkerUtterance(sequence, loop, model.tokenizer, model.repertoire, most, hit=hit)
        self._live[sequence.slot] = utterance
        loop.commands.put(device.Begin(sequence, loop.now_s()))
        return utterance

    def _house(self, model: OpenModel) -> House:
        return House(model.max_positions, self._options.unread_frame_limit)

    def _ready(self) -> tuple[OpenModel, Loop]:
        if self._broken is not None:
            raise self._broken
        if self._model is None or self._loop is None:
            raise NotReady("the model is still being loaded")
        return self._model, self._loop

    def _deliver(self, events: Items[Frames | Done]) -> None:
        for event in events:
            utterance = self._live[event.sequence.slot]
            if isinstance(event, Frames):
                utterance.on_frames(event)
                continue
            del self._live[event.sequence.slot]
            self._slots.release(event.sequence.lease)
            utterance.on_done(event)

    async def close(self) -> None:
        """Utterances still running end CANCELLED; returns when the thread has ended."""
        self._broken = self._broken or NotReady("the engine has been closed")
        if self._loop is not None:
            self._loop.commands.put(device.Close())
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def info(self) -> ModelInfo:
        model, _ = self._ready()
        config, repertoire = model.config, model.repertoire
        return ModelInfo(
            model_id=model.model_id,
            model_type=config.model_type,
            frame_rate_hz=config.frame_rate_hz,
            samples_per_frame=config.samples_per_frame,
            sample_rate_hz=config.sample_rate_hz,
            codebook_count=config.codebook_count,
            codebook_size=config.codebook_size,
            tokenizer_fingerprint=model.tokenizer.fingerprint,
            languages=offered_languages(config),
            supports_instruct=config.supports_instruct,
            supports_clone=config.supports_clone,
            slot_count=self._slots.total,
            free_slot_count=self._slots.free_count,
            dtype=model.dtype,
            device=model.device,
            steady_character_count=0 if repertoire is None else repertoire.steady_characters,
            speakable_characters="" if repertoire is None else repertoire.speakable,
        )

    def voices(self) -> tuple[VoiceInfo, ...]:
        config = self._ready()[0].config
        dialects = config.speaker_dialects
        return tuple(
            VoiceInfo(name, "chinese" if name in dialects else "", dialects.get(name, ""), "")
            for name in config.speakers
        )


def _ignore(why: str) -> None:
    """Nobody has asked."""


def _call(events: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    """Call on the event loop; when that has been closed, nobody is left to be told."""
    if not events.is_closed():
        events.call_soon_threadsafe(function, *arguments)


def _succeed(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _fail(ready: asyncio.Future[None], error: Exception) -> None:
    if not ready.done():
        ready.set_exception(error)
