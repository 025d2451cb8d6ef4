"""One conversation: the turn machine and everything it moves.

    transport ── hear, type, interrupt ──▶ steps ──▶ deeds ──▶ person (the brain listens), agent (answers), playout
    transport ◀─ tell, play ◀──────────────────────────────────┘

All of it runs on the event loop but the tick, which the pacer's thread calls every 20 ms. Knows no packets and decides
nothing: `services.gateway.turns` does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np
from voicemesh.brain.v1 import brain_pb2

from common.errors import InvalidRequest, MeshError, OutOfOrder
from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.access import spend_text
from services.gateway.session import ports, thinking
from services.gateway.session.agent import Agent
from services.gateway.session.aside import Aside
from services.gateway.session.brain_client import BrainAnswer, Listener
from services.gateway.session.deeds import Deeds, state_of
from services.gateway.session.ears import Ears
from services.gateway.session.history import History
from services.gateway.session.house import House
from services.gateway.session.measures import Measures
from services.gateway.session.mouth import Mouth
from services.gateway.session.person import Ear, Person, Turn
from services.gateway.session.progress import Progress
from services.gateway.session.recording import Recording
from services.gateway.session.steps import Alarms, Steps
from services.gateway.session.tasks import Tasks
from services.gateway.session.timeline import Timeline
from services.gateway.session.tuning import tuned
from services.gateway.turns import events, states
from services.gateway.turns.backchannel import LexicalOverlap
from services.gateway.turns.machine import TurnMachine
from services.gateway.turns.settings import TurnSettings

logger = logging.getLogger(__name__)
MAX_FORESIGHT_S = 10.0  # a client may say what will be heard, but not whenever
RELEASE_S = 2.0  # for what still runs when a conversation is over


def check_tools(house: House, settings: ports.SessionSettings) -> None:
    """`OutOfOrder` for tools that no brain here would call."""
    if settings.tools and not house.stages.brain_calls_tools:
        raise OutOfOrder("The brain here calls no tools.", reason="UNSUPPORTED", field="tools")


class Dialogue:
    """Implements `ports.Conversation`. `forget` is called when it is over."""

    def __init__(
        self,
        house: House,
        session_id: str,
        resume_token: str,
        settings: ports.SessionSettings,
        forget: Callable[[Dialogue], None],
    ) -> None:
        self.session_id = session_id
        self.resume_token = resume_token
        self.begun_s = time.time()
        self.kind = ""
        check_tools(house, settings)
        self._house = house
        self._forget = forget
        self._time = asyncio.get_running_loop().time
        self._is_over = asyncio.Event()
        self._reason = "closed"
        self._tasks = Tasks(self._broke)
        self._alarms = Alarms(self._broke)
        self._machine = TurnMachine(self._tuned(settings), self._time())
        self._mouth = Mouth(house.clock, lambda first_of, unix_s, news: self._progress.played(first_of, unix_s, news))
        self._history = History(house.numbers.history_audio_bytes)
        recording = Recording(self.settings.max_turn_s + self.settings.preroll_s + 5.0)
        self._ears = Ears(house.new_listener(), recording)
        self.person = Person(recording, self._open_brain, self._new_timeline)
        self._line = house.new_line()
        self.agent = Agent(
            house, self, self.person, self._history, self._mouth.playout, self._line, self._tasks.spawn, settings
        )
        self._measures = Measures(house.telemetry)
        self._progress = Progress(self, self.agent, self._measures, self._alarms)
        self._aside = Aside(self._overhear, LexicalOverlap(), self._judged)
        self._deeds = Deeds(
            house, self, self.agent, self.person, self._history, self._measures, self._aside, self._alarms, self._tasks
        )
        self._steps = Steps(self._machine, self._alarms, self._deeds.do, self._deeds.end_spans)
        self._tasks.spawn(self._line.run())

    # What a transport calls: see `ports.Conversation`.

    @property
    def state(self) -> ports.State:
        return state_of(self._machine.state)

    @property
    def epoch(self) -> int:
        return max(self._machine.epoch, 0)

    @property
    def turn(self) -> int:
        return self._machine.turn

    @property
    def wanted_epoch(self) -> int | None:
        """What is being made or heard now."""
        return self._machine.wanted_epoch

    @property
    def settings(self) -> TurnSettings:
        """The numbers of its turns."""
        return self._machine.settings

    def is_carried_by(self, transport: ports.Transport) -> bool:
        """Whether that transport is the one in use."""
        return self._mouth.transport is transport

    def hear(self, samples: ports.Samples, arrived_s: float) -> None:
        if not samples.size or self._mouth.transport is None:
            return
        heard, told = self._ears.hear(samples, arrived_s)
        pcm = heard.astype("<i2").tobytes()
        self.person.hear(pcm)
        self._aside.hear(pcm)
        for event in told:
            self.post(event)

    def feed_silence(self, duration_s: float) -> None:
        """As if that had been heard."""
        self.hear(np.zeros(round(duration_s * ports.HEARD_RATE_HZ), np.int16), self._time())

    def type(self, text: str) -> None:
        text = self._checked(text)
        self.person.typed.append(text)
        self.post(events.Typed())

    def commit(self) -> None:
        if self._deeds.is_unanswered and self._machine.state is states.State.LISTENING:
            self.post(events.AnswerRequested())
        else:
            self.post(events.CommitInput())

    def clear(self) -> None:
        self.post(events.ClearInput())

    def interrupt(self) -> tuple[int, str]:
        self.agent.last_heard = (0, "")
        self.post(events.Interrupt())
        return self.agent.last_heard

    def say(self, text: str, interruptible: bool) -> int:
        self._deeds.say_text = self._checked(text)
        self.post(events.Say(interruptible))
        return self._machine.epoch

    def tool_result(self, call_id: str, content: str, failed: bool) -> None:
        if len(content) > self._house.numbers.max_text_characters:
            raise InvalidRequest("A tool's answer holds too much.", reason="TOO_LARGE", field="tool_result")
        if not self.agent.calls.answered(call_id, content, failed):
            raise InvalidRequest("No call of that id waits for an answer.", field="tool_result.id")

    def report_playback(self, heard_sample_offset: int | None, client_buffer_s: float | None) -> None:
        if client_buffer_s is not None:
            self.agent.client_buffer_s = min(max(client_buffer_s, 0.0), 10.0)
        if heard_sample_offset is not None and self._machine.wanted_epoch is not None:
            self.agent.report(self._machine.wanted_epoch, max(0, heard_sample_offset))

    def report_first_audible(self, epoch: int, heard_s: float) -> None:
        self._milestone(epoch, Milestone.CLIENT_FIRST_AUDIBLE, heard_s)

    def report_first_opus(self, epoch: int, encoded_s: float) -> None:
        self._milestone(epoch, Milestone.FIRST_OPUS, encoded_s)

    def update(self, settings: ports.SessionSettings) -> None:
        check_tools(self._house, settings)
        self._machine.configure(self._tuned(settings))
        self.agent.settings = settings

    def suspend(self) -> None:
        self._mouth.detach()
        self.post(events.TransportLost())

    def attach(self, transport: ports.Transport) -> None:
        replaced = self._mouth.detach()
        wanted = self.agent.settings.echo_cancellation
        self._ears.echo = self._house.new_echo() if wanted or (wanted is None and transport.kind != "grpc") else None
        self._mouth.attach(transport, self._ears.echo)
        self.kind = transport.kind
        self.agent.client_buffer_s = transport.client_buffer_s
        if replaced is not None:
            self._tasks.spawn(replaced.close("replaced"))
        self.post(events.Connected())

    def end(self, reason: str) -> None:
        """Close, without waiting for what must be given back."""
        self._reason = reason
        self.post(events.Close())

    async def close(self, reason: str) -> None:
        self.end(reason)
        await self._is_over.wait()

    def drain(self, reason: str = "draining") -> None:
        """Finish what is being said, then close."""
        self._reason = reason
        self.post(events.Drain())

    async def over(self) -> None:
        """Return when it is."""
        await self._is_over.wait()

    def _checked(self, text: str) -> str:
        limit = self._house.numbers.max_text_characters
        if len(text) > limit:
            raise InvalidRequest(f"A turn holds at most {limit} characters.", reason="TOO_LARGE")
        if not text.strip():
            raise InvalidRequest("There is nothing in that text.", field="text")
        spend_text(len(text))
        return text

    def _tuned(self, settings: ports.SessionSettings) -> TurnSettings:
        hears = self._house.numbers.overlap_by_words and self._house.stages.brain_hears
        return tuned(self._house.settings, settings.turn_detection, hears=hears)

    def _milestone(self, epoch: int, milestone: Milestone, loop_s: float) -> None:
        turn = self._deeds.turn_of.get(epoch)
        if turn is None or turn not in self.person.turns:
            return
        unix_s = time.time() + min(loop_s - self._time(), MAX_FORESIGHT_S)
        if self.person.turn(turn).timeline.reached(milestone, unix_s):
            self.agent.teller.measured(turn)

    # What its parts tell.

    def post(self, event: events.Event) -> None:
        """To the turn machine, after the step that runs."""
        self._steps.post(event)

    def tell(self, event: ports.SessionEvent) -> None:
        """To the person's client."""
        self._house.watch(self.session_id, self.kind, event)
        self._measures.told(event)
        if self._mouth.transport is not None:
            self._mouth.transport.tell(event)

    def _open_brain(self, turn: Turn) -> Ear:
        speculates = self.settings.speculate and self.settings.create_response
        return thinking.opened(
            self._house,
            self,
            self._tasks.spawn,
            self.session_id,
            turn,
            self.agent.settings,
            self._history,
            speculates and self.settings.policy is states.Policy.SERVER_VAD,
        )

    def _overhear(self, listener: Listener) -> BrainAnswer:
        return thinking.overheard(self._house, self._tasks.spawn, self.session_id, listener)

    def _judged(self, epoch: int, verdict: states.Overlap) -> None:
        self.post(events.OverlapJudged(epoch, verdict))

    def _new_timeline(self, number: int) -> Timeline:
        return Timeline(self._house.telemetry.turn(session_id=self.session_id, epoch=self.epoch))

    def brain_says(self, epoch: int, text: str, token_count: int) -> None:
        """See `person.Owner`."""
        self.agent.brain_says(epoch, text, token_count)

    def brain_is_over(self, epoch: int, reason: FinishReason, error: MeshError | None) -> None:
        """See `person.Owner`."""
        self.agent.brain_is_over(epoch, reason, error)

    def brain_calls(self, epoch: int, call: brain_pb2.ToolCall) -> None:
        """See `person.Owner`."""
        self.agent.calls.wanted(epoch, call)

    def brain_understood(self, turn: int, text: str, final: bool) -> None:
        """See `person.Owner`."""
        if turn in self.person.turns:
            self.person.turn(turn).understood = text
        if final:
            self._history.transcript(turn, text)
        self.tell(ports.Transcript(turn, True, text, final))

    # The end.

    def _broke(self, error: BaseException) -> None:
        logger.error("conversation broke", exc_info=error, extra={"session": self.session_id})
        self.end("broken")

    def release(self) -> None:
        """Begin to give everything back."""
        self._tasks.spawn(self._release())

    async def _release(self) -> None:
        transport = self._mouth.detach()
        self._aside.over()
        self.agent.close()
        self.person.close()
        self._ears.close()
        self._line.finish()
        self._deeds.end_spans()
        try:
            if transport is not None:
                await transport.close(self._reason)
        finally:  # whatever a transport does, the place is free again
            await self._tasks.end(RELEASE_S)
            self.post(events.Released())
            self._is_over.set()
            self._alarms.close()
            self._forget(self)
