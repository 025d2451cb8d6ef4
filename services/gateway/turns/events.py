"""What the turn machine is told. Plain frozen values, nothing else.

Positions of the user's sound are samples at 16 kHz since the conversation began (`*_sample`). Times are not in here:
they come beside each event. An epoch names one thing that the agent says; only the machine hands epochs out, rising.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.turns.states import Overlap

# ---- the user's sound


@dataclass(frozen=True, slots=True)
class VoiceWindow:
    """One window of the user's sound was judged. `hearing.Listener` makes these; every 32 ms, in order, without a gap.

    `echo`: the level says that it is the agent's own voice coming back; such a window is silence while the agent is
    audible.
    """

    end_sample: int
    sample_count: int
    voiced: bool
    echo: bool = False


@dataclass(frozen=True, slots=True)
class EchoReport:
    """What echo cancellation knows: whether any echo comes back at all, and whether it is failing to remove it."""

    present: bool
    failing: bool = False


@dataclass(frozen=True, slots=True)
class TurnJudged:
    """The turn model's answer to `JudgeTurn`; may come late (dropped then) and repeatedly (the newest counts)."""

    turn: int
    revision: int
    p_complete: float


@dataclass(frozen=True, slots=True)
class OverlapJudged:
    """An answer to `JudgeOverlap`."""

    epoch: int
    verdict: Overlap


@dataclass(frozen=True, slots=True)
class TurnEmpty:
    """Nothing intelligible was said: the recogniser or the brain heard only noise in what `epoch` should answer."""

    epoch: int


# ---- the client


@dataclass(frozen=True, slots=True)
class Typed:
    """A text was typed: a whole turn at once. Its text stays with the session. Speech in progress joins the turn."""


@dataclass(frozen=True, slots=True)
class CommitInput:
    """The client ends the user's turn (push to talk, `input_audio_buffer.commit`)."""


@dataclass(frozen=True, slots=True)
class ClearInput:
    """The client forgets what was said and not yet committed."""


@dataclass(frozen=True, slots=True)
class AnswerRequested:
    """An answer without a new turn: `response.create`, or a duplex model that begins to speak."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stop talking; no new turn."""


@dataclass(frozen=True, slots=True)
class Say:
    """Say a text. The epoch it gets is `machine.epoch` right after the step.

    Interruptible: politely, when nobody speaks; given up (`SUPERSEDED`) if the user's next turn is answered before.
    Not interruptible: at once, in place of whatever the agent is saying, to its end.
    """

    interruptible: bool = True


# ---- the answer and its way out


@dataclass(frozen=True, slots=True)
class AnswerText:
    """The brain's first text of this epoch came."""

    epoch: int


@dataclass(frozen=True, slots=True)
class AnswerBusy:
    """The brain runs a tool: silence is expected, for `tool_s` from now."""

    epoch: int


@dataclass(frozen=True, slots=True)
class AudioReady:
    """The gate is open and enough sound lies ready to begin playing."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PlayoutProgress:
    """Speech of this epoch was sent since the last one. Needed a few times a second: it feeds the watchdog."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PlayoutDrained:
    """All of this epoch was sent, no more will come, and the client's buffer has had the time to play it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """A stage failed for good. What is buffered still plays, then `PlayoutDrained` is told as at any end.

    `hopeless`: it was asked for what cannot be done, so it would fail again: there is no second attempt.
    """

    epoch: int
    hopeless: bool = False


# ---- the session's life


@dataclass(frozen=True, slots=True)
class Connected:
    """The transport is up: for the first time, or again."""


@dataclass(frozen=True, slots=True)
class TransportLost:
    """Nobody is reachable: ICE failed, or neither sound nor a sign of life came for `transport_silence_s`."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Let what is being said finish, then close."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close now."""


@dataclass(frozen=True, slots=True)
class Released:
    """Everything was released: the answer to `Release`."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due at `machine.due_s`. Early and late ticks do no harm."""


Event = (
    VoiceWindow
    | EchoReport
    | TurnJudged
    | OverlapJudged
    | TurnEmpty
    | Typed
    | CommitInput
    | ClearInput
    | AnswerRequested
    | Interrupt
    | Say
    | AnswerText
    | AnswerBusy
    | AudioReady
    | PlayoutProgress
    | PlayoutDrained
    | AnswerFailed
    | Connected
    | TransportLost
    | Drain
    | Close
    | Released
    | Tick
)
