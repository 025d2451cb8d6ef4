"""One epoch of what is said to a person: text on its way to speech, speech on its way to the ear.

    brain text ──▶ speakable filter ──▶ first-packet gate ──▶ speech line ──▶ (kept until it may be heard) ──▶ playout

Asks for no more sound than will be played soon, so that a cancel wastes little. Knows which character was spoken with
which sample. Refuses to know turns and brains; what happens to it, it tells to its `Owner`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import numpy as np

from common.errors import MeshError
from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.media.playout import Playout
from services.gateway.session.ports import PLAYED_RATE_HZ, Samples
from services.gateway.session.words import Words
from services.gateway.turns.lead import leading_silence
from services.gateway.turns.settings import TurnSettings
from services.gateway.utterance import Sound, SpeechEnded, SpeechUtterance

_PREBUFFERED = 0.5  # of the prebuffer, with its leading silence cut: the first packet of one frame is enough
_LOOK_S = 0.05  # how often a full playout is looked at: playing is what empties it


class Owner(Protocol):
    """Who is told what happens to an answer; all on the event loop."""

    def answer_text(self, answer: Answer) -> None:
        """More of its text came."""

    def answer_ready(self, answer: Answer) -> None:
        """Enough of it lies ready to be heard."""

    def answer_silent(self, answer: Answer) -> None:
        """It is over, and there is nothing of it to hear."""

    def answer_failed(self, answer: Answer, error: MeshError) -> None:
        """A stage gave up; what is ready may still be heard."""

    def reached(self, answer: Answer, milestone: Milestone) -> None:
        """That moment is now."""


class Answer:
    """`words` turns text into what may be spoken; `utterance` is its way through the stages. Somebody must `run` it."""

    def __init__(
        self,
        epoch: int,
        turn: int,
        utterance: SpeechUtterance,
        words: Words,
        playout: Playout,
        settings: TurnSettings,
        owner: Owner,
    ) -> None:
        self.epoch = epoch
        self.turn = turn
        self.words = words
        self._utterance = utterance
        self._playout = playout
        self._settings = settings
        self._owner = owner
        self._kept: deque[tuple[int, Samples]] = deque()  # sound that may not be heard yet
        self._kept_samples = 0
        self._may_play = False
        self._moved = asyncio.Event()
        self._has_text = self._is_told = self._is_cancelled = False
        self._is_refused = False  # some of its text: what came before is all that is said
        self._time = asyncio.get_running_loop().time
        self._gate_timer: asyncio.TimerHandle | None = None
        self.sound_is_over = False
        self.sample_count = 0  # that came from the codec
        self._told_characters = 0  # to the talker
        self.brain_reason = FinishReason.COMPLETED
        self.speech_reason = FinishReason.COMPLETED
        self.error: MeshError | None = None

    # Text.

    def add(self, delta: str, token_count: int = 1) -> None:
        """More of what the brain writes."""
        if not delta or self._is_cancelled:
            return
        if not self._has_text:
            self._has_text = True
            self._owner.reached(self, Milestone.BRAIN_FIRST_TOKEN)
        self._say(self.words.add(delta, self._time(), token_count))
        self._owner.answer_text(self)
        self._watch_gate()

    def text_is_over(self, reason: FinishReason, error: MeshError | None = None) -> None:
        """The brain has said its last word."""
        if self._is_cancelled:
            return
        self.brain_reason = reason
        self._say(self.words.finish(self._time()))
        self._utterance.flush()
        if error is not None:
            self._fail(error)

    def _say(self, text: str) -> None:
        if text and not self._is_refused:
            self._owner.reached(self, Milestone.TTS_TEXT_FIRST)
            self._told_characters += len(text)
            try:
                self._utterance.feed(text)
            except MeshError as refused:
                self._is_refused = True
                self._fail(refused)
                self._utterance.flush()

    def _watch_gate(self) -> None:
        """A gate that is shut opens by itself after a while."""
        due_s = self.words.due_s
        if due_s is None or self._gate_timer is not None:
            return
        self._gate_timer = asyncio.get_running_loop().call_at(due_s, self._gate_is_due)

    def _gate_is_due(self) -> None:
        self._gate_timer = None
        if not self._is_cancelled:
            self._say(self.words.tick(self._time()))
            self._watch_gate()

    # Sound.

    async def run(self) -> None:
        """Take the sound as it comes, as much as will be played soon."""
        async for event in self._utterance:
            if isinstance(event, SpeechEnded):
                self._ended(event)
            elif isinstance(event, Sound) and not self._is_cancelled:
                self._heard_from_codec(event)
                await self._room()

    def _heard_from_codec(self, sound: Sound) -> None:
        samples = np.frombuffer(sound.chunk.payload, "<i2")
        if not self.sample_count:
            self._owner.reached(self, Milestone.CODEC_FIRST_PCM)
        offset, self.sample_count = self.sample_count, self.sample_count + samples.size
        # A talker that does not say what it has read cannot have read more than it was told.
        self.words.sound(offset, samples.size, sound.text_offset or self._told_characters)
        if not offset:
            offset = leading_silence(samples.tolist(), PLAYED_RATE_HZ, self._settings)
            samples = samples[offset:]
        if self._may_play:
            self._playout.enqueue(self.epoch, offset, samples)
        else:
            self._kept.append((offset, samples))
            self._kept_samples += samples.size
            if self._kept_samples >= self._settings.prebuffer_s * PLAYED_RATE_HZ * _PREBUFFERED:
                self._tell_ready()

    async def _room(self) -> None:
        """Return when there is little left to play."""
        while not self._is_cancelled:
            if not self._may_play:
                if self._kept_samples < self._settings.lead_s * PLAYED_RATE_HZ:
                    return
                self._moved.clear()
                await self._moved.wait()
                continue
            ahead_s = self._playout.lead_of(self.epoch) - self._settings.lead_s
            if ahead_s <= 0:
                return
            await asyncio.sleep(min(max(ahead_s, 0.005), _LOOK_S))

    def _ended(self, ended: SpeechEnded) -> None:
        self.sound_is_over = True
        self.speech_reason = FinishReason.FAILED if self._is_refused else ended.end.reason
        self.words.sound_is_over()
        if self._is_cancelled:
            return
        if ended.end.error is not None:
            self._fail(ended.end.error)
        if self._may_play:
            self._playout.end(self.epoch)
        elif self.sample_count:
            self._tell_ready()
        elif ended.end.error is None and self.error is None:
            self._owner.answer_silent(self)

    def _fail(self, error: MeshError) -> None:
        if self.error is None:
            self.error = error
            self._owner.answer_failed(self, error)

    def _tell_ready(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._owner.answer_ready(self)

    def play_ready_made(self, samples: Samples) -> None:
        """Sound that needs no stage, in the place of speech."""
        self._utterance.cancel()
        self._kept.append((0, samples))
        self._kept_samples = self.sample_count = samples.size
        self.sound_is_over = True
        self._tell_ready()

    def play(self) -> None:
        """It may be heard."""
        if self._may_play or self._is_cancelled:
            return
        self._may_play = True
        self._playout.begin(self.epoch)
        while self._kept:
            self._playout.enqueue(self.epoch, *self._kept.popleft())
        if self.sound_is_over:
            self._playout.end(self.epoch)
        self._moved.set()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self._is_cancelled = True
        self._kept.clear()
        self._utterance.cancel()
        self._moved.set()
        if self._gate_timer is not None:
            self._gate_timer.cancel()

    @property
    def reason(self) -> FinishReason:
        """Why it ended, if nobody cut it."""
        if self.error is not None:
            return FinishReason.FAILED
        cut = (self.speech_reason, self.brain_reason)
        return next((reason for reason in cut if reason is not FinishReason.COMPLETED), FinishReason.COMPLETED)
