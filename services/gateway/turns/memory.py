"""What the machine remembers, and the few moves that all its rules are made of. Pure.

The moves keep what must hold whatever the rules say: one epoch is alive at a time, an epoch that began ends once, the
floor is raised before anything else is said about an end, and entering a state drops the timers of the last one.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from services.gateway.turns.actions import Action, BeginAnswer, EndAnswer, RaiseFloor, StateChanged, StopPlayout
from services.gateway.turns.endpoint import EndpointDelay
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import LISTEN_RATE_HZ, Ending, Kind, Overlap, State
from services.gateway.turns.voice import Voice

_CANDIDATE_S = 0.5  # without a window


class Timer(Enum):
    """What a state waits for at most so long; `table.py` says what happens then."""

    CONNECT = auto()
    AWAY = auto()
    CANDIDATE = auto()  # windows stopped coming while one was open
    SOUND = auto()
    MAX_TURN = auto()
    COMMIT = auto()
    FIRST_TEXT = auto()
    FIRST_AUDIO = auto()
    STALL = auto()
    APOLOGY = auto()
    HOLD = auto()
    VERDICT = auto()  # a classifier has this long to say what was said
    RESUME = auto()
    CLOSE = auto()
    DRAIN = auto()  # outlives states


@dataclass(slots=True)
class Turn:
    """A turn of the user, being spoken or committed."""

    number: int
    from_sample: int
    began_s: float
    revision: int = 0
    voiced_samples: int = 0
    speech_end_sample: int = 0  # the end of the last voice that counts
    end_sample: int = 0  # what belongs to the turn ends here: the soft end
    p_complete: float | None = None
    speculations: int = 0
    typed: bool = False
    by_hand: bool = False  # typed, or committed by the client: it is over, whoever speaks on
    forced: bool = False
    committed_s: float = 0.0

    @property
    def voiced_s(self) -> float:
        """How much of it was voice."""
        return self.voiced_samples / LISTEN_RATE_HZ


@dataclass(slots=True)
class Said:
    """An epoch that is being made or heard."""

    epoch: int
    kind: Kind
    turn: Turn | None
    attempt: int = 1
    continues: int | None = None
    interruptible: bool = True
    held: bool = False
    has_text: bool = False  # the brain has said something
    ready: bool = False  # it could be heard
    audible: bool = False  # it was begun to be heard
    failed: bool = False
    drained: bool = False  # there is nothing of it to hear
    empty: bool = False  # held, and there was nothing to answer so far
    first_sound_s: float = 0.0
    false_holds: int = 0
    hold_early: bool = False  # the hold began within `early_s`
    noise_s: float = -math.inf  # when it went on after what nobody understood
    verdict: Overlap | None = None  # of the classifier, on what is said over it now
    busy_until_s: float = 0.0  # a tool runs


class Cut(NamedTuple):
    """An epoch that was interrupted, and the turn that it answered."""

    epoch: int
    turn: Turn | None


class Memory:
    """One conversation. `out` collects the actions of the step that runs at `now_s`."""

    def __init__(self, settings: TurnSettings, now_s: float, first_epoch: int) -> None:
        self.settings = settings
        self.now_s = now_s
        self.out: list[Action] = []
        self.state = State.CONNECTING
        self.timers: dict[Timer, float] = {}
        self.voice = Voice()
        self.endpoint = EndpointDelay()
        self.epoch = first_epoch - 1  # the newest handed out
        self.floor = first_epoch
        self.turns = 0  # numbers handed out to committed turns
        self.turn: Turn | None = None  # being spoken
        self.committed: Turn | None = None  # the newest one
        self.owed: Turn | None = None  # committed, to be answered when possible
        self.said: Said | None = None
        self.says: deque[Said] = deque()  # waiting, oldest first
        self.cut: Cut | None = None  # what speech interrupted, until the next epoch is heard
        self.claimed_sample = 0  # sound before this belongs to an earlier turn
        self.echo_present = True  # until the canceller says otherwise
        self.echo_failing = False
        self.draining = False
        self.arm(Timer.CONNECT, settings.connect_s)

    # ------------------------------------------------------------ states and timers

    def enter(self, state: State) -> None:
        """Be in a state; its rule arms its timers after this."""
        drain_s = self.timers.get(Timer.DRAIN)
        self.timers.clear()
        if drain_s is not None:
            self.timers[Timer.DRAIN] = drain_s
        self.state = state
        self.out.append(StateChanged(state, self.turn_number, self.said.epoch if self.said else None))

    def arm(self, timer: Timer, delay_s: float) -> None:
        """End this wait so much later than now."""
        self.timers[timer] = self.now_s + delay_s

    def expect_lapse(self) -> None:
        """The candidate will be over, also if no window comes any more."""
        self.arm(Timer.CANDIDATE, _CANDIDATE_S)

    def disarm(self, *timers: Timer) -> None:
        """These waits are over."""
        for timer in timers:
            self.timers.pop(timer, None)

    @property
    def turn_number(self) -> int:
        """Of the turn being spoken, else of the newest."""
        return self.turn.number if self.turn else self.turns

    # ------------------------------------------------------------ epochs

    def allocate(self) -> int:
        """The next epoch."""
        self.epoch += 1
        return self.epoch

    def begin(
        self,
        kind: Kind,
        turn: Turn | None,
        *,
        epoch: int | None = None,
        held: bool = False,
        attempt: int = 1,
        continues: int | None = None,
        interruptible: bool = True,
    ) -> Said:
        """Begin to make an epoch, a new one unless it was allocated before. Older `Say`s that wait are given up."""
        assert self.said is None, "one epoch at a time"
        said = Said(self.allocate() if epoch is None else epoch, kind, turn, attempt, continues, interruptible, held)
        while self.says and self.says[0].epoch < said.epoch:
            self.out.append(EndAnswer(self.says.popleft().epoch, Ending.SUPERSEDED, audible=False))
        self.said = said
        number, revision = (turn.number, turn.revision) if turn else (self.turns, 0)
        self.out.append(BeginAnswer(said.epoch, kind, number, revision, held, attempt, continues))
        return said

    def end(self, ending: Ending) -> None:
        """End the epoch that is alive, if one is."""
        said = self.said
        if said is None:
            return
        self.said = None
        if ending is not Ending.COMPLETED:
            self.raise_floor(said.epoch + 1)
            if said.audible:
                self.out.append(StopPlayout(said.epoch))
        self.out.append(EndAnswer(said.epoch, ending, said.audible))

    def end_says(self, ending: Ending) -> None:
        """Give up every `Say` that waits."""
        while self.says:
            self.out.append(EndAnswer(self.says.popleft().epoch, ending, audible=False))

    def raise_floor(self, floor: int) -> None:
        """Nothing below this epoch is wanted any more."""
        if floor > self.floor:
            self.floor = floor
            self.out.append(RaiseFloor(floor))

    def alive(self, epoch: int) -> Said | None:
        """The epoch that is alive, if it is this one."""
        return self.said if self.said is not None and self.said.epoch == epoch else None
