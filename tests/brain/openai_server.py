"""A small OpenAI-compatible server, made from the official client's own types: what it sends, `openai` can read.

It answers by a chain of words as `tiny_models` does, calls the first tool it is given, and can be told to misbehave.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import soundfile
from openai.types import CompletionUsage, Model
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import (
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.completion_usage import PromptTokensDetails

from tests.brain.tiny_models import SPEECH

MODEL = "tiny"


@dataclass
class OpenAIServer:
    """`requests` holds what was asked, `refusals` the statuses that the next requests get, 0 for a cut connection."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    silent: bool = False
    break_after: int | None = None
    running: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        """Listen, again on the port that it had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Cut every connection and listen no more."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = head.split("\r\n")
                size = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")), 0)
                body = await reader.readexactly(size)
                await self._answer(lines[0].split()[1], body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path.endswith("/models"):
            model = Model(id=MODEL, created=0, object="model", owned_by="tests")
            _send(writer, 200, json.dumps({"object": "list", "data": [model.model_dump()]}))
            return
        request = json.loads(body)
        self.requests.append(request)
        if self.refusals:
            status = self.refusals.pop(0)
            if status == 0:
                raise ConnectionResetError
            _send(writer, status, json.dumps({"error": {"message": "the words of the turn", "type": "test"}}))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await self._stream(request, reader, writer)

    async def _stream(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.running += 1
        try:
            count = 0
            async for chunk in self._chunks(request):
                data = f"data: {chunk.model_dump_json(exclude_none=True)}\n\n".encode()
                writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                await writer.drain()
                count += 1
                if reader.at_eof() or self.break_after == count:
                    raise ConnectionResetError
                await asyncio.sleep(0.0005)
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
        finally:
            self.running -= 1

    async def _chunks(self, request: dict[str, Any]) -> AsyncIterator[ChatCompletionChunk]:
        if self.silent:
            await asyncio.Event().wait()
        messages, limit = request["messages"], request.get("max_tokens") or 10_000
        words, reason = list(SPEECH), "stop"
        if messages[-1]["role"] == "tool":
            words = words[50:]
        elif messages[-1]["role"] == "assistant" and request.get("continue_final_message"):
            begun = messages[-1]["content"]
            words = words[len(begun.split()) :]
        elif request.get("tools"):
            words, reason = [], "tool_calls"
            for delta in _call(request["tools"][0]["function"]["name"]):
                yield _chunk(delta)
        words = _before(request.get("stop") or [], words)
        if limit < len(words):
            words, reason = words[:limit], "length"
        for word in words:
            yield _chunk(ChoiceDelta(content=word))
        yield _chunk(ChoiceDelta(), reason)
        yield _usage(sum(len(str(message)) for message in messages), len(words))


def _before(stop: list[str], words: list[str]) -> list[str]:
    """The words up to the first stop string, the last one perhaps in part."""
    text = "".join(words)
    end = min((text.index(mark) for mark in stop if mark in text), default=len(text))
    return re.findall(r" ?[^ ]+| $", text[:end])


def _call(name: str) -> list[ChoiceDelta]:
    """A call in pieces, as servers send them."""
    parts = (("call-1", name, ""), (None, None, '{"zone": '), (None, None, '"UTC"}'))
    return [
        ChoiceDelta(
            tool_calls=[
                ChoiceDeltaToolCall(
                    index=0, id=call_id, function=ChoiceDeltaToolCallFunction(name=named, arguments=arguments)
                )
            ]
        )
        for call_id, named, arguments in parts
    ]


def _chunk(delta: ChoiceDelta, reason: Any = None) -> ChatCompletionChunk:
    choice = Choice(index=0, delta=delta, finish_reason=reason)
    return ChatCompletionChunk(id="1", choices=[choice], created=0, model=MODEL, object="chat.completion.chunk")


def _usage(prompt: int, completion: int) -> ChatCompletionChunk:
    usage = CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=prompt // 2),
    )
    return ChatCompletionChunk(id="1", choices=[], created=0, model=MODEL, object="chat.completion.chunk", usage=usage)


def _send(writer: asyncio.StreamWriter, status: int, body: str) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body.encode())}\r\n\r\n"
    writer.write(head.encode() + body.encode())


def recordings_in(request: dict[str, Any]) -> list[float]:
    """The length in seconds of each `input_audio` of a request."""
    parts = [
        part for message in request["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    files = [base64.b64decode(part["input_audio"]["data"]) for part in parts if part["type"] == "input_audio"]
    return [soundfile.info(io.BytesIO(file)).duration for file in files]
