"""The callers of a soak: one conversation each over gRPC or WebRTC, as its client sees it.

A `Call` can be typed at, spoken to, silenced, sent nonsense, broken off and taken up again; its `Ledger` keeps what
must hold of any conversation, whatever carries it: every answer ends once, no sound follows its end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import grpc
import numpy as np
from numpy.typing import NDArray
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from common.status import error_of
from common.stream import FinishReason
from tests.gateway.media.people import Person

Sound = NDArray[np.int16]
Stub: Any = gateway_pb2_grpc.ConversationServiceStub
Ask = gateway_pb2.ConverseRequest
HEARD_HZ, WEBRTC_HZ = 16_000, 24_000
BLOCK_S = 0.02
LATE_S = 0.1  # between two packets of a call that sends one every 20 ms


class Lost(Exception):
    """The conversation is gone, and nobody asked for it."""


class Stuck(Lost):
    """It is there, and nothing happens."""


@dataclass
class Ledger:
    """What one conversation was told, and what was wrong with it."""

    counts: Counter[str]
    state: str = "connecting"
    open: dict[int, int] = field(default_factory=dict)  # answers begun and not over: epoch → turn
    sounding: set[int] = field(default_factory=set)  # epochs of which something was heard
    over: dict[int, str] = field(default_factory=dict)  # epoch → how it ended
    answered: dict[int, str] = field(default_factory=dict)  # turn → how its last answer ended
    turn: int = 0
    refused: int = 0  # faults told of single messages
    moved_s: float = field(default_factory=time.monotonic)  # when anything came last
    utterances: int = 0  # of the person, that were noticed
    is_gone: bool = False
    last: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self, what: str) -> None:
        """Something came."""
        self.moved()
        self.last.append(f"{self.moved_s:.3f} {what}")
        self.news.set()

    def moved(self) -> None:
        """It is alive."""
        self.moved_s = time.monotonic()

    def changed(self, state: str) -> None:
        self.state = state
        self.utterances += state == "user_speaking"
        self.told(f"state {state}")

    def committed(self, turn: int) -> None:
        self.turn = max(self.turn, turn)
        self.counts["turns"] += 1
        self.told(f"turn {turn}")

    def began(self, epoch: int, turn: int) -> None:
        self.turn = max(self.turn, turn)
        if epoch in self.over or epoch in self.open:
            self.counts["answers_begun_twice"] += 1
        self.open[epoch] = turn
        self.told(f"answer {epoch} of turn {turn} begins")

    def ended(self, epoch: int, how: str, why: str = "") -> None:
        turn = self.open.pop(epoch, None)
        if turn is None:
            self.counts["answers_ended_unbegun"] += 1
        else:
            self.answered[turn] = how
        self.over[epoch] = how
        self.counts[f"answers_{how.lower()}"] += 1
        if how == FinishReason.FAILED.name:
            self.counts[f"failed_for_{why.lower() or 'no_reason'}"] += 1
        self.told(f"answer {epoch} ends {how} {why}".rstrip())

    def sounds(self, epoch: int) -> None:
        self.counts["packets"] += 1
        self.moved()
        if epoch in self.over:
            self.counts["packets_of_answers_that_are_over"] += 1
        if epoch not in self.sounding:
            self.sounding.add(epoch)
            self.told(f"answer {epoch} sounds")

    def failed(self, message: str) -> None:
        self.refused += 1
        self.told(f"failed: {message}")

    def gone(self, why: str) -> None:
        self.is_gone = True
        self.told(f"gone: {why}")

    @property
    def is_settled(self) -> bool:
        """Nobody speaks and nothing is owed."""
        return self.state == "listening" and not self.open

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for it; `Lost` when the conversation is gone before."""
        while not condition():
            if self.is_gone:
                raise Lost(self.last[-1])
            self.news.clear()
            await self.news.wait()


class Microphone:
    """What a person says, block by block: silence, and what was put in."""

    def __init__(self, rate_hz: int) -> None:
        self.block_samples = round(rate_hz * BLOCK_S)
        self._silence = np.zeros(self.block_samples, np.int16)
        self._said: deque[Sound] = deque()

    def say(self, sound: Sound) -> float:
        """Speak it from now on; returns how long that takes."""
        whole = np.pad(sound, (0, -sound.size % self.block_samples))
        self._said.extend(whole.reshape(-1, self.block_samples))
        return float(len(self._said) * BLOCK_S)

    def next(self) -> Sound:
        return self._said.popleft() if self._said else self._silence


class Call(Protocol):
    """One way to hold a conversation."""

    kind: str
    ledger: Ledger
    microphone: Microphone

    async def open(self, resume_token: str = "") -> None:
        """A new conversation, or the one of that token."""

    async def type(self, text: str) -> None: ...
    async def silence(self) -> None: ...
    async def nonsense(self) -> None:
        """Messages that are refused, and harm nothing."""

    async def lose(self) -> str:
        """Break off without a word; returns the token that takes the conversation up."""

    async def leave(self) -> None:
        """End it as it should be ended."""


class GrpcCall:
    """`Converse`, with a microphone that sends 20 ms of PCM at a time."""

    kind = "grpc"

    def __init__(self, channel: grpc.aio.Channel, ledger: Ledger) -> None:
        self.ledger = ledger
        self.microphone = Microphone(HEARD_HZ)
        self.token = ""
        self.session_id = ""
        self._call = Stub(channel).Converse()
        self._writing = asyncio.Lock()
        self._is_hushed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, resume_token: str = "") -> None:
        await self._send(start=gateway_pb2.ConverseStart(resume_token=resume_token))
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._speak())]
        await self.ledger.until(lambda: self.token and self.ledger.state != "connecting")

    async def _send(self, **payload: Any) -> None:
        async with self._writing:
            try:
                await self._call.write(Ask(**payload))
            except (grpc.RpcError, asyncio.InvalidStateError) as error:
                self.ledger.gone(str(error))
                raise Lost(str(error)) from None

    async def _speak(self) -> None:
        due_s = time.monotonic()
        with suppress(Lost):
            while not self._is_hushed:
                await self._send(audio=self.microphone.next().tobytes())
                due_s = max(due_s + BLOCK_S, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _listen(self) -> None:
        try:
            async for response in self._call:
                self._take(response)
            self.ledger.gone("the stream ended")
        except grpc.RpcError as error:
            self.ledger.gone(str(error.code()))

    def _take(self, response: Any) -> None:
        match response.WhichOneof("payload"):
            case "started":
                self.token, self.session_id = response.started.resume_token, response.session_id
            case "audio":
                self.ledger.sounds(response.epoch)
            case "ended":
                ended = response.ended
                why = error_of(ended.error).reason if ended.HasField("error") else ""
                self.ledger.ended(response.epoch, FinishReason(ended.reason).name, why)
            case "event":
                self._event(response.epoch, response.event)
            case _:
                self.ledger.moved()

    def _event(self, epoch: int, event: Any) -> None:
        match event.type:
            case "state":
                self.ledger.changed(event.state)
            case "turn_committed":
                self.ledger.committed(event.turn)
            case "answer_started":
                self.ledger.began(epoch, event.turn)
            case "failed":
                self.ledger.failed(event.error.message)

    async def type(self, text: str) -> None:
        await self._send(text=text)

    async def silence(self) -> None:
        await self._send(interrupt=stream_pb2.Stop())

    async def nonsense(self) -> None:
        before = self.ledger.refused
        await self._send(text="  ")
        await self._send(audio=bytes(6 * 2 * HEARD_HZ))  # more than a message may hold
        await self.ledger.until(lambda: self.ledger.refused >= before + 2)

    async def lose(self) -> str:
        self._call.cancel()
        await self._end()
        return self.token

    async def break_protocol(self) -> None:
        """A second `start`: the stream must end for it, with FAILED_PRECONDITION."""
        await self._send(start=gateway_pb2.ConverseStart())
        with suppress(Lost):
            await self.ledger.until(lambda: False)
        code = await self._call.code()
        if code is grpc.StatusCode.INTERNAL:  # what grpc.aio makes of a refusal that meets a write of its own
            self.ledger.counts["broken_protocol_told_as_internal"] += 1
        elif code is not grpc.StatusCode.FAILED_PRECONDITION:
            self.ledger.counts["broken_protocol_let_pass"] += 1
            self.ledger.told(f"a second start ended the stream with {code.name}")
        await self._end()

    async def leave(self) -> None:
        self._is_hushed = True  # not cancelled: grpc.aio ends a call of which a write is cancelled
        await asyncio.wait([self._tasks[1]])
        await self._call.done_writing()
        with suppress(Lost):
            await self.ledger.until(lambda: False)
        await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Ear(Person):
    """Counts packets instead of keeping them."""

    def __init__(self, ledger: Ledger, microphone: Microphone) -> None:
        super().__init__()
        self._ledger = ledger
        self._came: tuple[float, int, int] | None = None  # when, sequence, timestamp
        self.speech = lambda number: microphone.next()

    def add(self, packet: Any) -> tuple[bool, None]:
        now_s, counts = time.monotonic(), self._ledger.counts
        counts["rtp_packets"] += 1
        if self._came is not None:
            before_s, sequence, timestamp = self._came
            if now_s - before_s > LATE_S:
                counts["rtp_gaps_over_100_ms"] += 1
            ahead = (packet.sequence_number - sequence) & 0xFFFF
            later = (packet.timestamp - timestamp) & 0xFFFFFFFF
            if not 0 < ahead < 0x8000 or not 0 < later < 0x80000000:
                counts["rtp_out_of_order"] += 1
        self._came = now_s, packet.sequence_number, packet.timestamp
        del self.said[:-1], self.slots[:-1]  # for what it is made for it keeps when each block was said
        return False, None


class WebRtcCall:
    """`POST /v1/realtime/calls`, OpenAI's events on the data channel, sound by RTP."""

    kind = "webrtc"

    def __init__(self, http: aiohttp.ClientSession, url: str, ledger: Ledger) -> None:
        self.ledger = ledger
        self.microphone = Microphone(WEBRTC_HZ)
        self.token = ""
        self._http = http
        self._url = url
        self._place = ""
        self._person = _Ear(ledger, self.microphone)

    async def open(self, resume_token: str = "") -> None:
        self._person.channel.on("message", self._take)
        self._person.channel.on("close", lambda: self.ledger.gone("the data channel was closed"))
        headers = {"Content-Type": "application/sdp"}
        if resume_token:
            headers["Voicemesh-Resume-Token"] = resume_token
        offer = await self._person.offer()
        async with self._http.post(f"{self._url}/v1/realtime/calls", data=offer, headers=headers) as response:
            answer = await response.text()
            if response.status != 201:
                raise Lost(f"{response.status}: {answer}")
            self._place = response.headers["Location"]
        await self._person.take(answer)
        await self.ledger.until(lambda: self.token)

    def _take(self, text: str) -> None:
        self._person.texts.clear()
        self.ledger.moved()
        event = json.loads(text)
        match event["type"]:
            case "session.created":
                self.token = event["session"]["voicemesh"]["resume_token"]
                self.ledger.told("opened")
            case "voice.state":
                self.ledger.turn = max(self.ledger.turn, event["turn_id"])
                self.ledger.changed(event["state"])
            case "input_audio_buffer.committed":
                self.ledger.committed(int(event["item_id"].rpartition("_")[2]))
            case "response.created":
                facts = event["response"]["metadata"]
                self.ledger.began(int(facts["generation_id"]), int(facts["turn_id"]))
            case "output_audio_buffer.started":
                self.ledger.sounds(_epoch(event["response_id"]))
            case "response.done":
                facts = event["response"]
                details = facts["status_details"]
                why = details.get("error", {}).get("code", "")
                self.ledger.ended(_epoch(facts["id"]), details["finish_reason"], why)
            case "error":
                self.ledger.failed(event["error"]["message"])

    def _send(self, kind: str, **fields: Any) -> None:
        if self._person.channel.readyState != "open":
            self.ledger.gone("the data channel is closed")
            raise Lost("the data channel is closed")
        self._person.channel.send(json.dumps({"type": kind, **fields}))

    async def type(self, text: str) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self._send("conversation.item.create", item=item)
        self._send("response.create")

    async def silence(self) -> None:
        self._send("response.cancel")

    async def nonsense(self) -> None:
        before = self.ledger.refused
        self._send("nobody.knows.this")
        self._person.channel.send("{ this is no JSON")
        self._send("conversation.item.create", item={"type": "message", "role": "user", "content": 7})
        await self.ledger.until(lambda: self.ledger.refused >= before + 3)

    async def lose(self) -> str:
        await self._person.close()
        return self.token

    async def leave(self) -> None:
        async with self._http.delete(f"{self._url}{self._place}") as response:
            if response.status != 200:
                self.ledger.counts["hang_ups_refused"] += 1
        await self._person.close()


def _epoch(response_id: str) -> int:
    return int(response_id.rpartition("_")[2])
