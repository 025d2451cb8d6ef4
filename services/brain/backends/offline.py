"""The default on a bare machine: a small deterministic talker that needs no weights. A demonstration and a test double.

It says words at a set pace with seeded jitter and stalls, so that slow and halting models can be tried, and hears a
closed set of phrases. The words themselves come from `services.brain.offline.talk`.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Callable

from common.errors import MeshError, NotReady
from common.stream import FinishReason
from services.brain.backend import BackendInfo, Call, Delta, Finish, Opening, Piece, Samples, Usage
from services.brain.offline.hearing import Ears, Heard
from services.brain.offline.talk import NOT_UNDERSTOOD, Talk, reply, rest_after
from services.brain.options import OfflineOptions
from services.brain.prompt import Conversation
from services.brain.tokens import Watch, new_call_id, with_arguments
from services.brain.types import BrainSampling, Role

logger = logging.getLogger(__name__)
MODEL_ID = "voicemesh-offline"
_TOKEN = re.compile(r"\s*[^\s\w]*\w{1,6}[^\s\w]*|\s*\S|\s+")
_CALL = re.compile(
    r"\s*(?:call|use)(?: the)?(?: tool)? (?P<name>[\w.-]+)(?: with (?P<arguments>\{.*\}))?\s*[.!]?\s*", re.S
)


class OfflineBackend:
    """The `Backend` that needs nothing. `now` gives the time of day that it tells."""

    def __init__(
        self, options: OfflineOptions | None = None, now: Callable[[], datetime.datetime] = datetime.datetime.now
    ) -> None:
        self._options = options or OfflineOptions()
        self._now = now
        self._ears = Ears(self._options.listeners)
        self._up = asyncio.Event()

    async def start(self) -> None:
        """Load the recognisers."""
        await self._ears.start()
        self._up.set()

    def info(self) -> BackendInfo:
        """See `Backend`."""
        return BackendInfo(MODEL_ID, "offline", "", hears_audio=True, calls_tools=True)

    def open(self, opening: Opening) -> OfflineExchange:
        """See `Backend`."""
        return OfflineExchange(self, opening)

    async def check(self) -> None:
        """See `Backend`. A recogniser that died is started again."""
        if not self._up.is_set():
            raise NotReady("the offline brain is closed", reason="DEPENDENCY_DOWN")
        if not self._ears.alive:
            await self._ears.start()

    async def close(self) -> None:
        """See `Backend`; answers on their way break off."""
        self._up.clear()
        self._ears.close()


class OfflineExchange:
    """One turn of it."""

    def __init__(self, backend: OfflineBackend, opening: Opening) -> None:
        self._backend = backend
        self._listener = backend._ears.listen(opening.on_words)
        self._heard: asyncio.Future[Heard] | None = None
        self._spoke = False

    def hear(self, samples: Samples) -> None:
        """See `Exchange`."""
        self._spoke = True
        self._listener.hear(samples)

    async def _words(self) -> Heard:
        """What was heard: recognised once, wanted by the answer and by the transcript."""
        if self._heard is None:
            self._heard = asyncio.ensure_future(self._listener.result())
        return await asyncio.shield(self._heard)

    async def answer(self, conversation: Conversation, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
        """See `Exchange`."""
        heard = await self._words() if self._spoke else Heard("", False)
        asked = conversation.messages[-1].text if conversation.messages[-1].role is Role.USER else ""
        said = " ".join(filter(None, (heard.text, asked)))
        yield Usage(sum(len(_TOKEN.findall(message.text)) for message in conversation.messages), 0)
        call = _wanted_call(conversation, said)
        if call is not None:
            yield call
            yield Finish(FinishReason.COMPLETED, 1)
            return
        text = self._reply(conversation, said, heard)
        if conversation.partial_answer:
            text = _rest(text, conversation.partial_answer)
        async for delta in self._say(text, sampling):
            yield delta

    def _reply(self, conversation: Conversation, said: str, heard: Heard) -> str:
        last = conversation.messages[-1]
        if last.role is Role.TOOL:
            return f"The tool says: {last.text}"
        if said:
            return reply(Talk(said, self._backend._now(), conversation.messages[:-1]))
        return NOT_UNDERSTOOD if heard.loud else ""

    async def _say(self, text: str, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
        """`text` token by token, at the set pace, up to the limits of `sampling`."""
        options, loop = self._backend._options, asyncio.get_running_loop()
        chance = random.Random(f"{options.seed} {sampling.seed} {text}")
        watch, count, reason = Watch(sampling.stop), 0, FinishReason.COMPLETED
        due = loop.time() + options.first_token_s
        for token in _TOKEN.findall(text):
            if sampling.max_tokens is not None and count >= sampling.max_tokens:
                reason = FinishReason.LENGTH
                break
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._check_up()
            count += 1
            free, stop = watch.push((token, ()))
            for piece, _ in free:
                yield Piece(piece, (), time.time())
            if stop is not None:
                break
            due = max(due, loop.time() - 1) + self._gap(count, chance)
        else:
            stop = None
        for piece, _ in watch.rest() if stop is None else ():
            yield Piece(piece, (), time.time())
        yield Finish(reason, count)

    def _gap(self, count: int, chance: random.Random) -> float:
        options = self._backend._options
        gap = 1 / options.tokens_per_s if options.tokens_per_s else 0.0
        gap *= 1 + options.jitter * chance.uniform(-1, 1)
        stalls = options.stall_every_tokens and count % options.stall_every_tokens == 0
        return gap + (options.stall_s if stalls else 0.0)

    def _check_up(self) -> None:
        if not self._backend._up.is_set():
            raise NotReady("the offline brain was closed", reason="DEPENDENCY_DOWN")

    async def transcript(self, conversation: Conversation) -> str:
        """See `Exchange`: what the recogniser understood, without a second request."""
        return (await self._words()).text

    def close(self) -> None:
        """See `Exchange`."""
        if self._heard is not None:
            self._heard.add_done_callback(_forget)
        self._listener.close()


def _forget(heard: asyncio.Future[Heard]) -> None:
    """An error that nobody waits for any more is no news."""
    if not heard.cancelled() and isinstance(error := heard.exception(), MeshError):
        logger.debug("not heard", extra={"reason": error.reason})


def _wanted_call(conversation: Conversation, said: str) -> Call | None:
    """ "Use the tool NAME with {...}" calls it: so that a tool loop can be tried without a model."""
    match = _CALL.fullmatch(said)
    if match is None or conversation.messages[-1].role is Role.TOOL or not conversation.tools:
        return None
    return with_arguments(new_call_id(), match["name"].rstrip("."), match["arguments"] or "{}")


def _rest(text: str, partial: str) -> str:
    """What follows `partial` in the answer; an answer begun by somebody else goes on after as many words."""
    if text.startswith(partial):
        return text[len(partial) :]
    return ("" if partial[-1].isspace() else " ") + rest_after(text, partial.strip())
