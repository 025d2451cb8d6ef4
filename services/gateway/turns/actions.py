"""What the turn machine asks for: to be done in order, before anything waits. Plain frozen values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.turns.states import Ending, Kind, State

# ---- do this, in order, before anything waits


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


# ---- tell this


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
