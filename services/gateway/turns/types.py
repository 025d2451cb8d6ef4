"""The words of the turn machine: its states, what it is told, what it asks for. Plain frozen values, nothing else.

Positions of the user's sound are samples at 16 kHz since the conversation began (`*_sample`). Times are not in here:
they come beside each event. An epoch names one thing that the agent says; only the machine hands epochs out, rising.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

LISTEN_RATE_HZ = 16_000


class State(Enum):
    """Where a conversation is. Every state but LISTENING and CLOSED has a timer that ends it."""

    CONNECTING = "connecting"  # nobody is reachable yet
    LISTENING = "listening"  # nobody speaks
    USER_SPEAKING = "user_speaking"
    ENDPOINTING = "endpointing"  # a silence that may be the end; an answer may already be made, held
    THINKING = "thinking"  # the turn is committed, nothing of the answer is out
    SPEAKING = "speaking"
    HOLD = "hold"  # muted: somebody may be barging in
    INTERRUPTED = "interrupted"  # passed through within one step, told so that it can be seen
    RECOVERING = "recovering"  # a stage failed: second attempt, then an apology
    SUSPENDED = "suspended"  # the transport is lost, the conversation is kept
    CLOSING = "closing"  # being released
    CLOSED = "closed"


class Policy(Enum):
    """Who ends the user's turn."""

    SERVER_VAD = "server_vad"  # the machine, from silence and the turn model
    MANUAL = "manual"  # the client, with `CommitInput`
    MODEL_DUPLEX = "model_duplex"  # the model speaks when it likes: nothing is held or cut because of speech


class BargeIn(Enum):
    """What a candidate does to the agent's voice until it is decided."""

    PAUSE = "pause"
    DUCK = "duck"  # quieter, not muted
    CONFIRM_ONLY = "confirm_only"  # nothing until the interruption is certain


class Kind(Enum):
    """What an epoch says."""

    ANSWER = "answer"
    CONTINUATION = "continuation"  # what was left of `continues` when noise interrupted it
    SAY = "say"  # a text that somebody asked to be said
    APOLOGY = "apology"  # ready-made sound: the answer failed twice


class Ending(Enum):
    """How an epoch ended; each epoch that began ends exactly once."""

    COMPLETED = "completed"  # said and heard to its end
    INTERRUPTED = "interrupted"  # the user spoke over it
    CANCELLED = "cancelled"  # the client did not want it
    SUPERSEDED = "superseded"  # something newer took its place before it was over
    WASTED = "wasted"  # speculation: the user had not finished
    EMPTY = "empty"  # there was no turn to answer
    INCOMPLETE = "incomplete"  # stalled or failed in the middle
    FAILED = "failed"  # stalled or failed before anything was heard
    SUSPENDED = "suspended"  # nobody was there to hear it


class Overlap(Enum):
    """What speech over the agent's voice turned out to be."""

    INTERRUPT = "interrupt"
    BACKCHANNEL = "backchannel"  # "mhm": the user listens
    NOISE = "noise"  # nobody said anything


# ---------------------------------------------------------------- events: the user's sound


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


# ---------------------------------------------------------------- events: the client


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


# ---------------------------------------------------------------- events: the answer and its way out


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


# ---------------------------------------------------------------- events: the session's life


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

# ---------------------------------------------------------------- actions: do this, in order, before anything waits


@dataclass(frozen=True, slots=True)
class RaiseFloor:
    """Everything of an epoch below `floor` is unwanted from now on, at every fence. Always first."""

    floor: int


@dataclass(frozen=True, slots=True)
class BeginAnswer:
    """Begin to make an epoch.

    `held`: speculation; make it, run no tools, tell nobody, do not let it be heard until `ReleaseAnswer`.
    `attempt`: 2 after a failure. `continues`: the epoch whose unheard rest is to be said (CONTINUATION).
    `turn` is the turn it answers (the latest one for SAY and APOLOGY).
    """

    epoch: int
    kind: Kind
    turn: int
    revision: int = 0
    held: bool = False
    attempt: int = 1
    continues: int | None = None


@dataclass(frozen=True, slots=True)
class QueueSay:
    """A `Say` got this epoch and waits; `BeginAnswer` or `EndAnswer` follows."""

    epoch: int


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """The held epoch is the answer to the turn just committed."""

    epoch: int


@dataclass(frozen=True, slots=True)
class EndAnswer:
    """An epoch is over; exactly once for each begun or queued. Unless COMPLETED, cancel all its streams now.

    `audible`: some of it was played, so what was heard of it belongs into the history (truncated, see `heard.py`);
    otherwise none of it does, and nothing is to be told to be truncated.
    """

    epoch: int
    ending: Ending
    audible: bool


@dataclass(frozen=True, slots=True)
class StartPlayout:
    """Let this epoch be heard, from its first sample."""

    epoch: int


@dataclass(frozen=True, slots=True)
class HoldPlayout:
    """Fade out and remember the sample (or, `duck`, make it quieter and go on)."""

    epoch: int
    duck: bool = False


@dataclass(frozen=True, slots=True)
class ResumePlayout:
    """Fade in at the sample where `HoldPlayout` cut."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StopPlayout:
    """Fade out if audible, drop the rest. Comes with `RaiseFloor` before it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class JudgeTurn:
    """Ask the turn model about this sound, off the loop; answer with `TurnJudged`."""

    turn: int
    revision: int
    from_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class JudgeOverlap:
    """Somebody speaks over this epoch since `from_sample`: a classifier, if there is one, answers `OverlapJudged`."""

    epoch: int
    from_sample: int


@dataclass(frozen=True, slots=True)
class OverlapPaused:
    """Whoever spoke over this epoch has paused, and nobody knows yet what it was: the verdict is wanted now."""

    epoch: int


@dataclass(frozen=True, slots=True)
class FeedSilence:
    """No sound has come for a while: put this much silence into the listener."""

    duration_s: float


@dataclass(frozen=True, slots=True)
class Release:
    """Give everything back, then tell `Released`."""


# ---------------------------------------------------------------- actions: tell this


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The conversation is in another state. `turn`: the current or latest; `epoch`: the one wanted, if any."""

    state: State
    turn: int
    epoch: int | None


@dataclass(frozen=True, slots=True)
class CandidateChanged:
    """Somebody may be speaking (`active`), or was not after all. The first moment to open the brain's input."""

    active: bool
    from_sample: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """It is speech, of turn `turn`. `from_sample` holds the pre-roll: the turn's sound begins there."""

    turn: int
    revision: int
    from_sample: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The user's speech ended at `end_sample` (told when the turn is committed, as it may go on until then)."""

    turn: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The turn is the user's last word: sound in [from_sample, end_sample), the same twice if it was only typed.

    A turn that was reopened after it had been committed comes again, with a higher revision: it replaces the earlier
    one in the history. `epoch` answers it; None when answers are not made by themselves (`create_response` off).
    """

    turn: int
    revision: int
    from_sample: int
    end_sample: int
    typed: bool = False
    forced: bool = False  # longer than `max_turn_s`
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class TurnReopened:
    """The user went on: the turn is open again. `committed`: it had been, so its entry in the history is withdrawn."""

    turn: int
    revision: int
    committed: bool


@dataclass(frozen=True, slots=True)
class TurnDropped:
    """It was no turn: leave no trace of it."""

    turn: int


@dataclass(frozen=True, slots=True)
class FalseInterruption:
    """The agent fell silent for nothing. `resumed`: it goes on where it stopped."""

    epoch: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class BackchannelHeard:
    """The user said "mhm"; the agent goes on."""

    epoch: int


@dataclass(frozen=True, slots=True)
class UserAway:
    """Nobody has spoken for `user_away_s`."""


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """The answer to `turn` failed twice; an apology is tried next."""

    turn: int


Action = (
    RaiseFloor
    | BeginAnswer
    | QueueSay
    | ReleaseAnswer
    | EndAnswer
    | StartPlayout
    | HoldPlayout
    | ResumePlayout
    | StopPlayout
    | JudgeTurn
    | JudgeOverlap
    | OverlapPaused
    | FeedSilence
    | Release
    | StateChanged
    | CandidateChanged
    | SpeechStarted
    | SpeechStopped
    | TurnCommitted
    | TurnReopened
    | TurnDropped
    | FalseInterruption
    | BackchannelHeard
    | UserAway
    | AnswerLost
)
