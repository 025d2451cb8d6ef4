"""Any OpenAI-compatible streaming endpoint, `vllm serve` first of all, through the official client.

A request is tried again only before its first token: after that, trying again would say things twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from common.errors import Broken, InvalidRequest, MeshError, NotReady, OutOfTime, Overloaded
from common.stream import FinishReason
from services.brain.backend import SPECULATIVE, TRANSCRIPT, BackendInfo, Delta, Finish, Opening, Piece, Samples
from services.brain.backend import Usage as Prompt
from services.brain.options import OpenAIOptions
from services.brain.prompt import ChatMessage, Conversation, for_openai, template_tools, transcription
from services.brain.tokens import new_call_id, with_arguments
from services.brain.types import BrainSampling, Role

logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every request is no news
GO_ON = "Go on with your answer exactly where it stops. Repeat nothing of it."
MAX_TRANSCRIPT_TOKENS = 512


class OpenAIBackend:
    """The `Backend` over HTTP. Token ids are the server's own affair: none are passed on."""

    def __init__(self, options: OpenAIOptions) -> None:
        self._options = options
        self._model = options.model
        timeout = openai.Timeout(options.read_timeout_s, connect=options.connect_timeout_s)
        self._client = openai.AsyncOpenAI(base_url=options.url, api_key=options.api_key, timeout=timeout, max_retries=0)

    async def start(self) -> None:
        """Ask the server what it serves. Raises `NotReady` while it is not there."""
        await self.check()

    def info(self) -> BackendInfo:
        """See `Backend`."""
        options = self._options
        return BackendInfo(self._model or "unknown", "openai", "", options.hears_audio, options.calls_tools)

    def open(self, opening: Opening) -> OpenAIExchange:
        """See `Backend`."""
        return OpenAIExchange(self, opening.priority)

    async def check(self) -> None:
        """See `Backend`: the server lists its models."""
        try:
            models = await self._client.models.list()
        except openai.APIStatusError as error:
            if error.status_code not in (404, 405):  # an endpoint without a list is alive all the same
                raise _fault(error) from error
        except openai.APIError as error:
            raise _fault(error) from error
        else:
            served = [model.id for model in models.data]
            self._model = self._model or (served[0] if served else "")

    async def close(self) -> None:
        """See `Backend`."""
        await self._client.close()

    async def generate(
        self, conversation: Conversation, sampling: BrainSampling, priority: int
    ) -> AsyncGenerator[Delta, None]:
        """One answer, as deltas. Closing the generator closes the connection, which stops the server's model."""
        stream = await self._begin(self._request(conversation, sampling, priority))
        try:
            reading = _Reading()
            async for chunk in stream:
                for delta in reading.take(chunk):
                    yield delta
            for delta in reading.finish():
                yield delta
        except openai.APIError as error:
            raise _fault(error) from error
        except (httpx2.HTTPError, ConnectionError) as error:
            raise NotReady("the model's server broke off", reason="DEPENDENCY_DOWN") from error
        finally:
            await stream.close()

    async def _begin(self, request: dict[str, Any]) -> openai.AsyncStream[ChatCompletionChunk]:
        """The stream, from its first try or a later one: nothing has been said yet."""
        delay = self._options.retry_delay_s
        for left in range(self._options.retries, -1, -1):
            try:
                stream: openai.AsyncStream[ChatCompletionChunk] = await self._client.chat.completions.create(
                    stream=True, **request
                )
                return stream
            except openai.APIError as error:
                fault = _fault(error)
                if not left or not isinstance(fault, NotReady | Overloaded):
                    raise fault from error
            await asyncio.sleep(delay)
            delay *= 2
        raise AssertionError("the last try returns or raises")

    def _request(self, conversation: Conversation, sampling: BrainSampling, priority: int) -> dict[str, Any]:
        messages, extra = self._messages(conversation)
        request: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": None if sampling.seed is None else sampling.seed % 2**63,
            "stop": list(sampling.stop) or None,
            "tools": template_tools(conversation.tools) or None,
        }
        if priority in (SPECULATIVE, TRANSCRIPT) and self._options.priorities:
            extra["priority"] = priority
        return {name: value for name, value in request.items() if value is not None} | {"extra_body": extra or None}

    def _messages(self, conversation: Conversation) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The messages, and what else has to be said so that an answer goes on after its beginning."""
        begun = conversation.partial_answer
        messages = for_openai(conversation, _json)
        if not begun:
            return messages, {}
        messages.append({"role": "assistant", "content": begun})
        if self._options.continues == "vllm":
            return messages, {"add_generation_prompt": False, "continue_final_message": True}
        return [*messages, *for_openai(Conversation((ChatMessage(Role.USER, GO_ON),)), _json)], {}


class OpenAIExchange:
    """One turn of it. What is heard waits in the engine until the turn is complete: files are sent whole."""

    def __init__(self, backend: OpenAIBackend, priority: int) -> None:
        self._backend = backend
        self._priority = priority

    def hear(self, samples: Samples) -> None:
        """See `Exchange`."""

    def answer(self, conversation: Conversation, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
        """See `Exchange`."""
        return self._backend.generate(conversation, sampling, self._priority)

    async def transcript(self, conversation: Conversation) -> str:
        """See `Exchange`."""
        sampling = BrainSampling(temperature=0, max_tokens=MAX_TRANSCRIPT_TOKENS)
        deltas = self._backend.generate(transcription(conversation), sampling, TRANSCRIPT)
        return "".join([delta.text async for delta in deltas if isinstance(delta, Piece)]).strip()

    def close(self) -> None:
        """See `Exchange`: closing the generators is all there is to do."""


class _Reading:
    """Chunks of one answer to deltas; a tool call comes in pieces, by its index, and is told when it is complete."""

    def __init__(self) -> None:
        self._calls: dict[int, list[str]] = {}
        self._reason = ""
        self._count = self._reported = 0

    def take(self, chunk: ChatCompletionChunk) -> list[Delta]:
        """What a chunk tells."""
        deltas: list[Delta] = []
        if chunk.usage is not None:
            self._reported = chunk.usage.completion_tokens
            details = chunk.usage.prompt_tokens_details
            cached = (details.cached_tokens or 0) if details is not None else 0
            deltas.append(Prompt(chunk.usage.prompt_tokens, cached))
        for choice in chunk.choices[:1]:
            self._reason = choice.finish_reason or self._reason
            for part in choice.delta.tool_calls or ():
                call = self._calls.setdefault(part.index, ["", "", ""])
                call[0] = call[0] or part.id or ""
                if part.function is not None:
                    call[1] += part.function.name or ""
                    call[2] += part.function.arguments or ""
            if choice.delta.content:
                self._count += 1
                deltas.append(Piece(choice.delta.content, (), time.time()))
        return deltas

    def finish(self) -> list[Delta]:
        """The calls and the end. Raises `NotReady` when the stream stopped without saying why."""
        if not self._reason:
            raise NotReady("the model's server broke off", reason="DEPENDENCY_DOWN")
        if self._reason == "content_filter":
            raise Broken("the model's server withheld the rest of the answer")
        calls: list[Delta] = [
            with_arguments(call_id or new_call_id(), name, arguments)
            for _, (call_id, name, arguments) in sorted(self._calls.items())
        ]
        reason = FinishReason.LENGTH if self._reason == "length" else FinishReason.COMPLETED
        return [*calls, Finish(reason, self._reported or self._count)]


def _fault(error: openai.APIError) -> MeshError:
    """What the client's errors mean here; nothing of a server's message is passed on, it may hold words of the turn."""
    if isinstance(error, openai.APITimeoutError):
        return OutOfTime("the model's server did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        return NotReady("the model's server cannot be reached", reason="DEPENDENCY_DOWN")
    if not isinstance(error, openai.APIStatusError):
        return NotReady("the model's server reported an error in the middle of its answer", reason="DEPENDENCY_DOWN")
    status = error.status_code
    if status == 429:
        return Overloaded("the model's server is full", retry_after_s=_retry_after_s(error))
    if status in (401, 403):
        return NotReady(f"the model's server refused us ({status}): check the API key", reason="DEPENDENCY_DOWN")
    if status in (400, 404, 413, 422):
        return InvalidRequest(f"the model's server does not take this request ({status})", reason="UNSUPPORTED")
    return NotReady(f"the model's server has a fault of its own ({status})", reason="DEPENDENCY_DOWN")


def _retry_after_s(error: openai.APIStatusError) -> float:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "1")))
    except ValueError:
        return 1.0


def _json(arguments: Mapping[str, object]) -> str:
    return json.dumps(dict(arguments))
