"""Ears for the offline brain: pocketsphinx with the closed grammar, on a thread of its own; nothing else knows it.

Samples are recognised while the person still speaks, in slices of 20 ms (about 1 ms of work each, during which
pocketsphinx keeps the interpreter's lock), so the loop is never held up for longer than a slice. Decoders (19 MB each)
are made at the start and never later, for making one keeps the lock for 0.07 s. When more people speak at once than
there are decoders, what the last of them say is kept and recognised, twenty times as fast, when one is free.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pocketsphinx
from numpy.typing import NDArray

from common.errors import Broken, NotReady
from services.brain.offline.grammar import PHONES, grammar, phone_word, vocabulary, words_of

logger = logging.getLogger(__name__)
_SLICE = 320  # samples, 20 ms
_SILENCE = np.zeros(4800, np.float32)  # 0.3 s around: the recogniser wants to hear where words begin and end
_LOUD = 0.004  # root mean square of a slice that is no silence, -48 dBFS
_INTERIM = 15  # slices between interim results
_AT_ONCE = 50 * _SLICE  # a second of kept sound, some 50 ms of work
_LONGEST = 1000  # slices: no phrase takes 20 s, so what goes on for longer is none, and is not worth the work
_DITHER = 0.001  # -60 dBFS: digital silence has no spectrum to subtract a mean from
_CMN = "54.4,-3.5,-2.2,8.8,-11.0,1.5,-1.9,-11.6,-5.5,-2.9,1.2,1.0,-3.5"
"""Mean cepstrum that every turn starts from; pocketsphinx adapts it only between utterances. With the phrases of
`grammar.PHONE_WEIGHT` its own start understood 21 of 72, one left over from other turns 47, this one (their mean) 54,
and 49 and 50 at 0.1 and 0.9 of full scale. Starting over also makes a turn independent of who spoke before."""


@dataclass(frozen=True)
class Heard:
    """`text` is "" when no phrase was understood; `loud` says whether there was anything to understand."""

    text: str
    loud: bool


@dataclass(eq=False)
class _Listening:
    """One person's turn, as the thread sees it."""

    on_words: Callable[[str], None] | None
    decoder: pocketsphinx.Decoder | None = None
    unheard: list[NDArray[np.float32]] = field(default_factory=list)  # less than a slice, or all for want of a decoder
    answer: Callable[[Heard], None] | None = None  # wanted once everything is heard
    noise: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    slice_count: int = 0
    loud: bool = False
    words: str = ""
    is_closed: bool = False

    @property
    def is_too_long(self) -> bool:
        """No phrase takes so long: nothing more of it is recognised."""
        return self.slice_count > _LONGEST


_Command = Callable[[], None]


class Listener:
    """One turn being heard. Called on the event loop; nothing here waits for the recogniser."""

    def __init__(self, ears: Ears, on_words: Callable[[str], None] | None) -> None:
        self._ears = ears
        self._state = _Listening(on_words)
        self._begun = self._closed = False

    def hear(self, samples: NDArray[np.float32]) -> None:
        """More samples [N], float32 at 16 kHz."""
        if not self._begun:
            self._begun = True
            self._ears.do(lambda: self._ears.take(self._state, _SILENCE))
        self._ears.do(lambda: self._ears.take(self._state, samples))

    async def result(self) -> Heard:
        """All of it, once the recogniser has caught up. Raises `NotReady` when it died."""
        if not self._begun:
            return Heard("", False)
        done: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._ears.ask(self._state, done)
        return await done

    def close(self) -> None:
        """Nobody wants to know any more."""
        if not self._closed:
            self._closed = self._state.is_closed = True
            self._ears.do(lambda: self._ears.drop(self._state))


class Ears:
    """The recogniser's thread and its `decoder_count` decoders, which are reused from turn to turn."""

    def __init__(self, decoder_count: int = 1) -> None:
        self._decoder_count = decoder_count
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._free: list[pocketsphinx.Decoder] = []
        self._queue: deque[_Listening] = deque()  # for a decoder
        self._waiting: set[asyncio.Future[Heard]] = set()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Make the decoders (0.07 s each) and begin to listen."""
        self._loop = asyncio.get_running_loop()
        self._free = await asyncio.to_thread(_decoders, self._decoder_count)
        self._queue.clear()
        self._commands = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(self._commands,), name="ears", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def listen(self, on_words: Callable[[str], None] | None = None) -> Listener:
        """Hear one turn; `on_words` is called on the loop with all words so far, whenever they change."""
        return Listener(self, on_words)

    def close(self) -> None:
        """End the thread after what it is doing; turns still waiting are told that it is gone."""
        self._commands.put(None)
        self._thread = None  # whoever asks now is not left waiting behind the end
        self._tell_all(NotReady("the recogniser is closed", reason="DEPENDENCY_DOWN"))

    def do(self, command: _Command) -> None:
        """Have the thread do something; without a thread nothing happens, and `ask` says so."""
        self._commands.put(command)

    def ask(self, state: _Listening, done: asyncio.Future[Heard]) -> None:
        """Have the thread say what was heard, once it has heard it all."""
        if not self.alive:
            done.set_exception(NotReady("the recogniser is not running", reason="DEPENDENCY_DOWN"))
            return
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        self.do(lambda: self.finish(state, lambda heard: self._on_loop(_tell, done, heard)))

    # On the thread.

    def _run(self, commands: queue.SimpleQueue[_Command | None]) -> None:
        try:
            while (command := commands.get()) is not None:
                command()
        except Exception:
            logger.exception("the recogniser died")
            self._on_loop(self._tell_all, Broken("the recogniser died; the log says how"))

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it everybody who listens
            self._loop.call_soon_threadsafe(call, *arguments)

    def _tell_all(self, error: Exception) -> None:
        for done in list(self._waiting):
            if not done.done():
                done.set_exception(error)

    def take(self, state: _Listening, samples: NDArray[np.float32]) -> None:
        """More of what somebody says; nothing for whom nobody waits any more."""
        if state.is_closed:
            return
        if state.decoder is None and not state.is_too_long and state not in self._queue:
            self._queue.append(state)
        state.unheard.append(samples)
        self._hear(state)
        self._serve()

    def finish(self, state: _Listening, answer: Callable[[Heard], None]) -> None:
        """That was all: `answer` is called once it is recognised."""
        state.answer = answer
        if state.is_closed:
            self._end(state)
        else:
            self.take(state, _SILENCE)

    def drop(self, state: _Listening) -> None:
        """Take the decoder of a turn that ended early back."""
        if state in self._queue:
            self._queue.remove(state)
        self._end(state)
        self._serve()

    def _serve(self) -> None:
        """Free decoders go to those who wait: first to who has finished and is soon done, then to who came first."""
        while self._queue and self._free:
            state = next((one for one in self._queue if one.answer is not None), self._queue[0])
            self._queue.remove(state)
            state.decoder = self._free.pop()
            state.decoder.set_cmn(_CMN)
            state.decoder.start_utt()
            self._hear(state)

    def _hear(self, state: _Listening) -> None:
        """Recognise whole slices, giving way to the loop after each; nothing while it waits for a decoder."""
        if state in self._queue or not state.unheard:
            return
        samples = np.concatenate(state.unheard)
        whole = samples.size - samples.size % _SLICE
        is_all = whole <= _AT_ONCE
        whole = min(whole, _AT_ONCE)
        state.unheard = [samples[whole:]]
        for at in range(0, whole, _SLICE):
            if state.is_closed:
                break
            self._slice(state, samples[at : at + _SLICE])
            time.sleep(0)
        if state.is_too_long:
            self._let_go(state)
        if not (is_all or state.is_closed):
            self.do(lambda: self._hear_on(state))  # the rest, after what others said meanwhile
        elif state.answer is not None:
            self._end(state)

    def _hear_on(self, state: _Listening) -> None:
        self._hear(state)
        self._serve()

    def _slice(self, state: _Listening, samples: NDArray[np.float32]) -> None:
        state.loud = state.loud or bool(np.sqrt(np.mean(np.square(samples))) > _LOUD)
        state.slice_count += 1
        decoder = state.decoder
        if state.is_too_long or decoder is None:
            return
        dithered = samples + _DITHER * state.noise.standard_normal(samples.size, np.float32)
        decoder.process_raw((dithered.clip(-1, 1) * 32767).astype("<i2").tobytes())
        if state.on_words is not None and state.slice_count % _INTERIM == 0:
            words = _words(decoder)
            if words and words != state.words:
                state.words = words
                self._on_loop(state.on_words, words)

    def _end(self, state: _Listening) -> None:
        """Nothing more is heard; whoever waits for an answer gets it."""
        words = self._let_go(state)
        state.unheard = []
        state.on_words = None
        answer, state.answer = state.answer, None
        if answer is not None:
            answer(Heard(words, state.loud))

    def _let_go(self, state: _Listening) -> str:
        """Its decoder is free; returns all words."""
        decoder, state.decoder = state.decoder, None
        if decoder is None:
            return ""
        decoder.end_utt()
        self._free.append(decoder)
        return _words(decoder)


def _tell(done: asyncio.Future[Heard], heard: Heard) -> None:
    if not done.done():
        done.set_result(heard)


def _words(decoder: pocketsphinx.Decoder) -> str:
    hypothesis = decoder.hyp()
    return words_of(hypothesis.hypstr) if hypothesis is not None else ""


def _decoders(count: int) -> list[pocketsphinx.Decoder]:
    dictionary = _dictionary()
    try:
        return [_new_decoder(dictionary) for _ in range(count)]
    finally:
        Path(dictionary).unlink()


def _dictionary() -> str:
    """How the words sound: the grammar's part of the dictionary (19 MB a decoder instead of 36), as a file."""
    wanted = vocabulary()
    said = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text("utf-8").splitlines()
    lines = [line for line in said if line.split(" ", 1)[0].split("(")[0] in wanted]
    with tempfile.NamedTemporaryFile("w", suffix=".dict", delete=False) as file:
        file.writelines(f"{line}\n" for line in [*lines, *(f"{phone_word(phone)} {phone}" for phone in PHONES)])
    return file.name


def _new_decoder(dictionary: str) -> pocketsphinx.Decoder:
    decoder = pocketsphinx.Decoder(lm=None, dict=dictionary, logfn=os.devnull, bestpath=False)
    decoder.add_jsgf_string("brain", grammar())
    decoder.activate_search("brain")
    return decoder
