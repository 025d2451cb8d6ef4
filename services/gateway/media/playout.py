"""The ring between the answer that comes and the ear that waits: 24 kHz mono int16, one block of 20 ms at a time.

    enqueue ──▶ ▒▒▒▒▒▒▒▒▒▒▒▒▒▒ ──▶ next_block        one epoch is audible at a time; the next waits behind it
    (loop)      └── lead ──┘       (pacer's thread)  below the floor nothing goes in, and nothing comes out

Every sample is handed out at most once and in order. Where sound is cut (`hold`, a risen floor, an underrun) its last
10 ms fade; a hold goes on with the very next sample. Thread-safe. It has no clock: `next_block` is told the time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.errors import Overloaded
from services.gateway.media.sound import Samples, Sound, shaped
from services.gateway.session.ports import BLOCK_SAMPLES, PLAYED_RATE_HZ, Block

KEPT_EPOCHS = 8
"""Whose sent position can still be asked for."""


@dataclass(frozen=True)
class PlayoutSettings:
    """Times in seconds of sound."""

    fade_s: float = 0.01
    restart_s: float = 0.12  # buffered before sound goes on after an underrun, so that it does not stutter
    low_s: float = 0.04  # below this a marked boundary is the better place to stop
    capacity_s: float = 60.0


# What happened, told in the pacer's thread with the epoch it happened to.


@dataclass(frozen=True, slots=True)
class Began:
    """The first sample of the epoch goes out with this block."""

    epoch: int
    at_s: float


@dataclass(frozen=True, slots=True)
class RanDry:
    """Nothing more to play, though the epoch has not ended: a pause begins."""

    epoch: int
    sample_offset: int


@dataclass(frozen=True, slots=True)
class WentOn:
    """The pause of an underrun is over."""

    epoch: int
    pause_s: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The last sample of an ended epoch is in the block that is handed out now (or was in an earlier one)."""

    epoch: int
    sample_offset: int


PlayoutEvent = Began | RanDry | WentOn | Finished


@dataclass(frozen=True)
class _Tail:
    """The faded end of what was cut, to go out with the next block."""

    sound: Sound
    offset: int
    original: Samples


class Playout:
    """See the module. One conversation's; the loop writes, the pacer's thread reads."""

    def __init__(
        self, on_event: Callable[[PlayoutEvent], None] | None = None, settings: PlayoutSettings | None = None
    ) -> None:
        self._on_event = on_event
        self._settings = settings or PlayoutSettings()
        self._fade = round(self._settings.fade_s * PLAYED_RATE_HZ)
        self._restart = round(self._settings.restart_s * PLAYED_RATE_HZ)
        self._low = round(self._settings.low_s * PLAYED_RATE_HZ)
        self._capacity = round(self._settings.capacity_s * PLAYED_RATE_HZ)
        self._lock = threading.Lock()
        self._floor = 0
        self._sounds: deque[Sound] = deque()
        self._tail: _Tail | None = None
        self._holding = False
        self._fade_in = False
        self._sent: dict[int, int] = {}
        self._waiting: list[PlayoutEvent] = []
        self._last = (0, 0)  # epoch and offset where silence stands
        self.stale_samples = 0
        self.underruns = 0

    # The loop's side.

    def begin(self, epoch: int, prebuffer_s: float = 0.0) -> bool:
        """Expect an epoch; its sound starts once `prebuffer_s` of it is here, or it has ended. `False`: stale."""
        with self._lock:
            return self._find(epoch, round(prebuffer_s * PLAYED_RATE_HZ)) is not None

    def enqueue(self, epoch: int, first_sample_offset: int, samples: Samples) -> bool:
        """Sound of an epoch, behind what is there; what was there already is dropped. `False`: stale, all dropped.

        The ring keeps `samples` and never writes into it. Raises `SequenceGap`, and `Overloaded` when full."""
        with self._lock:
            sound = self._find(epoch, 0)
            if sound is None or sound.ended:
                self.stale_samples += samples.size
                return False
            if sum(one.available for one in self._sounds) + samples.size > self._capacity:
                raise Overloaded("The playout is full.", retry_after_s=self._settings.restart_s)
            sound.put(first_sample_offset, samples)
            return True

    def mark_boundary(self, epoch: int, sample_offset: int) -> None:
        """A word or phrase ends before this sample: a good place to stop when sound runs out. Offsets must rise."""
        with self._lock:
            sound = self._find(epoch, 0)
            if sound is not None:
                sound.mark(sample_offset)

    def end(self, epoch: int) -> None:
        """Nothing more comes of this epoch: `Finished` follows its last sample."""
        with self._lock:
            sound = self._find(epoch, 0)
            if sound is not None:
                sound.ended = True

    def raise_floor(self, epoch: int) -> int:
        """Nothing older than `epoch` is wanted: it fades within the next block and is gone. Also ends a hold.

        Returns how many samples of what was audible will have gone out, the fade included; it is final."""
        with self._lock:
            if epoch > self._floor:
                self._floor = epoch
                self._cut(keep=False)
                while self._sounds and self._sounds[0].epoch < epoch:
                    self._sounds.popleft()
                self._holding = False
                self._fade_in = False
            return self._last[1]

    def forget_cut(self) -> None:
        """Somebody else listens from now on: the fade of what was cut before they came is not for them."""
        with self._lock:
            if self._tail is not None and self._tail.sound.epoch < self._floor:
                self._tail = None

    def hold(self) -> int | None:
        """Fade and fall silent, keeping the rest. Returns the offset of the sample with which `resume` goes on; None
        when nothing was to be heard."""
        with self._lock:
            if not self._holding:
                self._holding = True
                self._cut(keep=True)
            return self._sounds[0].position if self._sounds else None

    def resume(self) -> None:
        """Go on after a hold, with the sample that was next. A fade that has not gone out yet is taken back."""
        with self._lock:
            if not self._holding:
                return
            self._holding = False
            if self._tail is None:
                self._fade_in = bool(self._sounds) and self._sounds[0].began
            else:
                self._tail.sound.put_back(self._tail.original)
                self._tail = None
                self._note(self._sounds[0])

    @property
    def floor(self) -> int:
        return self._floor

    @property
    def holding(self) -> bool:
        return self._holding

    @property
    def lead_s(self) -> float:
        """Sound of the audible epoch that waits to be played."""
        with self._lock:
            return self._sounds[0].available / PLAYED_RATE_HZ if self._sounds else 0.0

    def lead_of(self, epoch: int) -> float:
        """Seconds of this epoch's sound that wait, audible or behind another."""
        with self._lock:
            return sum(one.available for one in self._sounds if one.epoch == epoch) / PLAYED_RATE_HZ

    def sent(self, epoch: int) -> int:
        """The offset after the last sample of this epoch that was, or will with the next block be, handed out."""
        with self._lock:
            return self._sent.get(epoch, 0)

    # The pacer's side.

    def next_block(self, now_s: float) -> Block:
        """What goes out now: always 20 ms, silence when there is nothing. Events are told after the lock is free."""
        with self._lock:
            block = self._next(now_s)
            events, self._waiting = self._waiting, []
        if self._on_event is not None:
            for event in events:
                self._on_event(event)
        return block

    def _next(self, now_s: float) -> Block:
        if (tail := self._tail) is not None:
            self._tail = None
            faded = shaped(tail.original, fade_out=tail.original.size)
            return _block(faded, tail.sound.epoch, tail.offset)
        if self._holding:
            return self._silence()
        while self._sounds:
            sound = self._sounds[0]
            if sound.ended and not sound.available:
                self._sounds.popleft()
                self._waiting.append(Finished(sound.epoch, sound.position or 0))
                continue
            if not self._may_play(sound, now_s):
                break
            return self._play(sound, now_s)
        return self._silence()

    def _may_play(self, sound: Sound, now_s: float) -> bool:
        if sound.dry_since_s is not None:
            if not sound.ended and sound.available < self._restart:
                return False
            self._waiting.append(WentOn(sound.epoch, now_s - sound.dry_since_s))
            sound.dry_since_s = None
            self._fade_in = True
        elif not sound.began and not sound.ended:
            return sound.available >= max(sound.start_samples, BLOCK_SAMPLES + self._fade)
        return True

    def _play(self, sound: Sound, now_s: float) -> Block:
        if not sound.began:
            sound.began = True
            self._waiting.append(Began(sound.epoch, now_s))
        count, dry = self._portion(sound)
        offset = sound.position or 0
        samples = sound.take(count)
        if self._fade_in or dry:
            samples = shaped(samples, fade_in=self._fade if self._fade_in else 0, fade_out=self._fade if dry else 0)
            self._fade_in = False
        self._note(sound)
        if dry:
            self.underruns += 1
            sound.dry_since_s = now_s
            self._waiting.append(RanDry(sound.epoch, offset + count))
        elif sound.ended and not sound.available:
            self._sounds.popleft()
            self._waiting.append(Finished(sound.epoch, offset + count))
        return _block(samples, sound.epoch, offset)

    def _portion(self, sound: Sound) -> tuple[int, bool]:
        """How many samples go out now, and whether the sound runs dry with them."""
        if sound.ended:
            return min(BLOCK_SAMPLES, sound.available), False
        if sound.available < self._low:
            boundary = sound.boundary(self._fade)
            if boundary is not None and boundary <= BLOCK_SAMPLES:
                return boundary, True
        if sound.available < BLOCK_SAMPLES + self._fade:  # the next block could not even fade
            return min(BLOCK_SAMPLES, sound.available), True
        return BLOCK_SAMPLES, False

    # Both, under the lock.

    def _find(self, epoch: int, start_samples: int) -> Sound | None:
        """The epoch's place in the ring, made if it is new; None when it is older than the floor or than another."""
        if epoch < self._floor:
            return None
        for sound in self._sounds:
            if sound.epoch == epoch:
                return sound
        if epoch in self._sent or (self._sounds and epoch < self._sounds[-1].epoch):
            return None
        sound = Sound(epoch, start_samples)
        self._sounds.append(sound)
        self._sent[epoch] = 0
        while len(self._sent) > KEPT_EPOCHS:
            del self._sent[min(self._sent)]
        return sound

    def _cut(self, keep: bool) -> None:
        """Let what is audible fade with the next block; what is silent already needs none."""
        if self._tail is not None or not self._sounds:
            return
        sound = self._sounds[0]
        if not keep and sound.epoch >= self._floor:
            return
        count = min(self._fade, sound.available)
        if (not keep and self._holding) or not sound.began or sound.dry_since_s is not None or not count:
            return
        offset = sound.position or 0
        self._tail = _Tail(sound, offset, sound.take(count))
        self._note(sound)

    def _note(self, sound: Sound) -> None:
        self._last = (sound.epoch, sound.position or 0)
        self._sent[sound.epoch] = sound.position or 0

    def _silence(self) -> Block:
        epoch, offset = self._last
        if self._sounds and not self._holding:
            epoch, offset = self._sounds[0].epoch, self._sounds[0].position or 0
        return Block(_SILENCE, False, epoch, offset)


_SILENCE: Samples = np.zeros(BLOCK_SAMPLES, np.int16)
_SILENCE.setflags(write=False)


def _block(samples: Samples, epoch: int, offset: int) -> Block:
    if samples.size < BLOCK_SAMPLES:
        samples = np.concatenate([samples, _SILENCE[samples.size :]])
    return Block(samples, True, epoch, offset)
