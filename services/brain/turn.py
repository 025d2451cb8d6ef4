"""One turn: listens, answers, waits for tools, ends exactly once. Knows limits and order; no model, no transport.

`BrainTurn.run` is the turn's own task. What the caller does (`feed_*`, `finish`, `cancel`) only changes plain state and
wakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np

from common.errors import Broken, InvalidRequest, MeshError, NotReady, OutOfOrder, OutOfTime
from common.stream import FinishReason
from services.brain.audio import Ear, duration_s
from services.brain.backend import NORMAL, SPECULATIVE, Backend, Call, Delta, Finish, Opening, Piece, Samples, Usage
from services.brain.limits import BrainLimits
from services.brain.outbox import Outbox
from services.brain.prompt import Conversation, opening, with_calls, with_turn
from services.brain.types import Ended, Event, Started, TextPiece, ToolCallRequest, Transcript, TurnRequest

logger = logging.getLogger(__name__)
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class BrainTurn:
    """The engine's `Turn`. Created by `BrainEngine.submit`, which also runs it and takes its slot back."""

    def __init__(self, request: TurnRequest, backend: Backend, limits: BrainLimits, instructions: str) -> None:
        self._request = request
        self._limits = limits
        self._info = backend.info()
        self._ear = Ear(request.audio_format)
        self._before = opening(request, instructions, limits.max_history_messages)
        priority = SPECULATIVE if request.speculative else NORMAL
        self._exchange = backend.open(Opening(self._before, priority, self._words if request.want_transcript else None))
        self._text: list[str] = []
        self._text_length = 0
        self._audio: list[Samples] = []
        self._audio_bytes = 0
        self._finished = False
        self._input = asyncio.Event()
        self._results: dict[str, str | None] = {}
        self._outbox = Outbox(limits.unread_events, limits.reader_timeout_s)
        self._ended: Ended | None = None
        self._usage = Usage(0, 0)
        self._made = self._making = 0
        self._max_tokens = min(request.sampling.max_tokens or limits.max_tokens, limits.max_tokens)
        self._finish_s: float | None = None
        self._first_s: float | None = None
        self._compute_s = 0.0
        self._begun_s: float | None = None
        self._time = asyncio.get_running_loop().time
        self._task: asyncio.Task[None] | None = None
        self.fault: MeshError | None = None

    # What the caller does.

    def feed_text(self, text: str) -> None:
        """See `Turn`."""
        self._check_open("text")
        self._text_length += len(text)
        if self._text_length > self._limits.max_text_characters:
            raise InvalidRequest(
                f"a turn holds at most {self._limits.max_text_characters} characters", reason="TOO_LARGE"
            )
        self._text.append(text)
        self._input.set()

    def feed_audio(self, payload: bytes) -> None:
        """See `Turn`."""
        self._check_open("audio")
        if not self._info.hears_audio:
            raise InvalidRequest(f"{self._info.model_id} does not hear audio", reason="UNSUPPORTED")
        self._audio_bytes += len(payload)
        if duration_s(self._request.audio_format, self._audio_bytes) > self._limits.max_audio_s:
            raise InvalidRequest(f"a turn holds at most {self._limits.max_audio_s:g} s of audio", reason="TOO_LARGE")
        self._hear(self._ear.take(payload))
        self._input.set()

    def tool_result(self, call_id: str, content: str, failed: bool = False) -> None:
        """See `Turn`."""
        if self._ended is not None:
            return
        if self._results.get(call_id, "") is not None:
            raise OutOfOrder(f"no tool call {call_id!r} waits for a result")
        if len(content) > self._limits.max_text_characters:
            raise InvalidRequest(
                f"a result holds at most {self._limits.max_text_characters} characters", reason="TOO_LARGE"
            )
        self._results[call_id] = f"Error: {content}" if failed else content
        self._input.set()

    def finish(self) -> None:
        """See `Turn`."""
        if self._finished:
            return
        self._finished = True
        self._finish_s = self._time()
        if self._audio_bytes and self._ended is None:
            self._hear(self._ear.flush())
        self._input.set()

    def cancel(self) -> None:
        """See `Turn`."""
        if self._ended is None:
            self._end(FinishReason.CANCELLED)
        elif self._outbox.drop_unread():  # all of it was made, and not all was told
            self._ended = replace(self._ended, reason=FinishReason.CANCELLED, error=None)
            self._outbox.put(self._ended)
        if self._task is not None:
            self._task.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return aiter(self._outbox)

    def _check_open(self, what: str) -> None:
        if self._finished:
            raise OutOfOrder(f"{what} after finish")

    def _hear(self, samples: Samples) -> None:
        if samples.size and self._ended is None:
            self._audio.append(samples)
            self._exchange.hear(samples)

    def _words(self, text: str) -> None:
        """An interim transcript; with a full queue it may be missed, the final one is not."""
        if self._ended is None and not self._outbox.full:
            self._outbox.put(Transcript(text, False))

    # The turn's own task.

    def start(self, spawn: Spawn) -> asyncio.Task[None]:
        """Run in a task of `spawn`'s group; the task ends without raising, except when it is cancelled."""
        self._spawn = spawn
        self._outbox.put(Started(self._info.model_id, self._info.tokenizer_fingerprint))
        self._task = spawn(self._run())
        self._task.add_done_callback(self._let_go)
        return self._task

    def _let_go(self, task: asyncio.Task[None]) -> None:
        """It is over. Nothing that it holds, megabytes of sound above all, may wait for the collector: no circles."""
        self._exchange.close()
        self._task = None

    async def _run(self) -> None:
        left = self._request.deadline_s if self._request.deadline_s is not None else self._limits.turn_timeout_s
        try:
            async with asyncio.timeout(min(left, self._limits.turn_timeout_s)):
                reason = await self._converse()
        except TimeoutError:
            self._fail(OutOfTime("the turn took longer than its deadline"))
        except MeshError as error:
            self._fail(error)
        except asyncio.CancelledError as cancelled:
            self._end(FinishReason.CANCELLED)
            raise cancelled.with_traceback(None) from None  # where it waited ties this turn and its task in a circle
        except Exception:
            logger.exception("turn failed")
            self._fail(Broken("the brain failed; its log says how"))
        else:
            self._end(reason)

    async def _converse(self) -> FinishReason:
        await self._wait(lambda: self._finished, self._limits.listen_idle_s, "nothing was said for too long")
        samples = np.concatenate(self._audio) if self._audio else None
        conversation = with_turn(self._before, "".join(self._text), samples)
        if not conversation.awaits_answer:
            return FinishReason.COMPLETED
        transcript = self._spawn(self._transcribe(conversation)) if self._request.want_transcript else None
        try:
            reason = await self._answer(conversation)
            if transcript is not None:
                await asyncio.wait({transcript}, timeout=self._limits.transcript_timeout_s)
        finally:
            if transcript is not None:
                transcript.cancel()
        return reason

    async def _transcribe(self, conversation: Conversation) -> None:
        """Typed words are their own transcript. One that cannot be had is missing; the answer does not suffer."""
        text = "".join(self._text)
        if conversation.messages[-1].samples is not None and self._audio:
            try:
                heard = await self._exchange.transcript(conversation)
            except MeshError as error:
                logger.info("no transcript", extra={"reason": error.reason})
                return
            text = " ".join(filter(None, (heard, text)))
        if self._ended is None:
            self._outbox.put(Transcript(text, True))

    async def _answer(self, conversation: Conversation) -> FinishReason:
        for _ in range(self._limits.max_tool_rounds + 1):
            said, calls, reason = await self._one_answer(conversation)
            if not calls or reason is FinishReason.LENGTH:
                return reason
            results = await self._call(calls)
            conversation = with_calls(conversation, said, [call.call for call in calls], results)
        return FinishReason.RUNAWAY

    async def _one_answer(self, conversation: Conversation) -> tuple[str, list[Call], FinishReason]:
        """One answer of the model, told as it is made."""
        sampling = replace(self._request.sampling, max_tokens=self._max_tokens - self._made)
        self._begun_s = self._time()
        said: list[str] = []
        calls: list[Call] = []
        reason = FinishReason.COMPLETED
        async with contextlib.aclosing(self._paced(self._exchange.answer(conversation, sampling))) as deltas:
            async for delta in deltas:
                match delta:
                    case Piece():
                        said.append(delta.text)
                        self._making += max(len(delta.ids), 1)
                        if self._first_s is None:
                            self._first_s = self._time()
                        await self._outbox.tell(TextPiece(delta.text, delta.ids, delta.produced_time_s))
                    case Call():
                        calls.append(delta)
                    case Usage():
                        self._usage = delta
                    case Finish():
                        reason = delta.reason
                        self._making = delta.completion_token_count
        self._made, self._making = self._made + self._making, 0
        self._compute_s, self._begun_s = self._compute_s + self._time() - self._begun_s, None
        return "".join(said), calls, FinishReason.LENGTH if calls and self._made >= self._max_tokens else reason

    async def _paced(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        """The same, or `OutOfTime` when the model stays silent for too long."""
        limit = self._limits.first_delta_timeout_s
        async with contextlib.aclosing(deltas):
            while True:
                try:
                    async with asyncio.timeout(limit) as watch:
                        delta = await anext(deltas)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not watch.expired():
                        raise
                    raise OutOfTime(f"the model said nothing for {limit:g} s") from None
                yield delta
                limit = self._limits.delta_timeout_s

    async def _call(self, calls: list[Call]) -> list[str]:
        """Have the tools called; calls that nobody can make are answered here, to the model alone."""
        if len(calls) > self._limits.max_calls_per_round:
            raise Broken(f"the model wants {len(calls)} tools called at once")
        known = {tool.name for tool in self._request.tools}
        self._results = {call.call.id: _refusal(call, known) for call in calls}
        for call in calls:
            if self._results[call.call.id] is None:
                await self._outbox.tell(ToolCallRequest(call.call))
        results = self._results
        await self._wait(
            lambda: all(result is not None for result in results.values()),
            self._limits.tool_timeout_s,
            "a tool's result did not come",
        )
        self._results = {}
        return [results[call.call.id] or "" for call in calls]

    async def _wait(self, done: Callable[[], bool], idle_s: float, sentence: str) -> None:
        """Until `done`; `OutOfTime` when nothing at all comes for `idle_s`."""
        while not done():
            self._input.clear()
            try:
                async with asyncio.timeout(idle_s) as watch:
                    await self._input.wait()
            except TimeoutError:
                if not watch.expired():
                    raise
                raise OutOfTime(sentence) from None

    def _fail(self, error: MeshError) -> None:
        if isinstance(error, NotReady | Broken):
            self.fault = error
        self._end(FinishReason.FAILED, error)

    def _end(self, reason: FinishReason, error: MeshError | None = None) -> None:
        """The one `Ended`; what was not read of a cancelled answer is dropped."""
        if self._ended is not None:
            return
        first = None if self._first_s is None or self._finish_s is None else self._first_s - self._finish_s
        prompt, cached = self._usage.prompt_token_count, self._usage.cached_token_count
        compute_s = self._compute_s + (self._time() - self._begun_s if self._begun_s is not None else 0)
        self._ended = Ended(reason, error, prompt, cached, self._made + self._making, first, compute_s)
        if reason is FinishReason.CANCELLED:
            self._outbox.drop_unread()
        self._outbox.put(self._ended)

    @property
    def ended(self) -> Ended | None:
        """How it ended, once it has."""
        return self._ended


def _refusal(call: Call, known: set[str]) -> str | None:
    """Why a call is not passed on; `None` when it is."""
    if call.error:
        return f"Error: {call.error}"
    return None if call.call.name in known else f"Error: there is no tool {call.call.name!r}"
