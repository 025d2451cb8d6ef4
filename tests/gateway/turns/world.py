"""Everything around a turn machine, simulated: a playout that sends 20 ms blocks, clients, stages, a strict witness.

The witness checks each step: what the machine asks for must make sense in the world as it is. It fences nothing itself,
so that a sample of an epoch that is not wanted any more would be seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.gateway.turns.actions import (
    Action,
    BeginAnswer,
    EndAnswer,
    FeedSilence,
    HoldPlayout,
    QueueSay,
    RaiseFloor,
    ReleaseAnswer,
    ResumePlayout,
    SpeechStarted,
    StartPlayout,
    StateChanged,
    StopPlayout,
    TurnCommitted,
    TurnDropped,
    TurnReopened,
)
from services.gateway.turns.events import (
    AnswerBusy,
    AnswerFailed,
    AnswerRequested,
    AnswerText,
    AudioReady,
    ClearInput,
    CommitInput,
    Connected,
    Drain,
    EchoReport,
    Event,
    Interrupt,
    OverlapJudged,
    PlayoutDrained,
    PlayoutProgress,
    Released,
    Say,
    Tick,
    TransportLost,
    TurnEmpty,
    TurnJudged,
    Typed,
    VoiceWindow,
)
from services.gateway.turns.machine import TurnMachine
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import Overlap, State

BLOCK_S = 0.02
BLOCK_SAMPLES = 480
WINDOW, WINDOW_S = 512, 0.032
_LONGEST_WAIT_S = 90.0  # of any timer, with the settings that storms use
_QUIET = (State.LISTENING, State.CLOSED)


@dataclass
class Playout:
    """Sends one epoch, block by block."""

    playing: int | None = None
    held: bool = False
    ducked: bool = False
    sent: dict[int, int] = field(default_factory=dict)  # samples, by epoch
    made: dict[int, int] = field(default_factory=dict)


@dataclass
class Witness:
    """What must hold, checked at every step."""

    begun: dict[int, BeginAnswer] = field(default_factory=dict)
    queued: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    released: set[int] = field(default_factory=set)
    audible: set[int] = field(default_factory=set)
    floor: int = 0
    spoken: set[int] = field(default_factory=set)  # turns
    committed: dict[int, TurnCommitted] = field(default_factory=dict)
    newest_epoch: int = 0

    def open(self) -> set[int]:
        return (set(self.begun) | self.queued) - self.ended


class World:
    """Drives a machine and believes nothing that it says."""

    def __init__(self, settings: TurnSettings) -> None:
        self.now_s = 1000.0
        self.sample = 0
        self.machine = TurnMachine(settings, self.now_s)
        self.playout = Playout()
        self.witness = Witness(floor=self.machine.floor)
        self.steps = 0

    # ------------------------------------------------------------ what happens

    def tell(self, event: Event, after_s: float = 0.0) -> None:
        """Time passes while sound goes out, then the event comes; the machine's alarm is late by as much."""
        self._pass(after_s)
        self.steps += 1
        actions = self.machine.step(event, self.now_s)
        for action in actions:
            self._check(action)
            self._do(action)
        self._check_after(event, actions)

    def window(self, voiced: bool, echo: bool = False) -> None:
        self.sample += WINDOW
        self.tell(VoiceWindow(self.sample, WINDOW, voiced, echo), WINDOW_S)

    def wait(self, seconds: float) -> None:
        """Nothing comes but what the machine waits for."""
        end_s = self.now_s + seconds
        while (due_s := self.machine.due_s) is not None and due_s <= end_s:
            self.tell(Tick(), max(0.0, due_s - self.now_s))
        self._pass(max(0.0, end_s - self.now_s))

    def settle(self) -> None:
        """I4: with nothing but time, it comes to rest, and nothing is left open."""
        for _ in range(100):
            due_s = self.machine.due_s
            if due_s is None:
                break
            self.tell(Tick(), max(0.0, due_s - self.now_s))
        assert self.machine.due_s is None, f"{self.machine.state} goes on for ever"
        assert self.machine.state in _QUIET
        assert not self.witness.open(), f"{self.witness.open()} never ended"
        assert self.playout.playing is None

    def _pass(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s + BLOCK_S <= end_s:
            self.now_s += BLOCK_S
            self._send()
        self.now_s = end_s

    def _send(self) -> None:
        playout = self.playout
        epoch = playout.playing
        if epoch is None or (playout.held and not playout.ducked):
            return
        if playout.sent[epoch] < playout.made.get(epoch, 0):
            assert epoch >= self.machine.floor, "I1: a sample below the floor"
            playout.sent[epoch] += BLOCK_SAMPLES

    # ------------------------------------------------------------ what is asked for

    def _do(self, action: Action) -> None:
        playout = self.playout
        match action:
            case StartPlayout(epoch):
                playout.playing, playout.held = epoch, False
                playout.sent[epoch] = 0
            case HoldPlayout(_, duck):
                playout.held, playout.ducked = True, duck
            case ResumePlayout():
                playout.held = playout.ducked = False
            case StopPlayout():
                playout.playing, playout.held, playout.ducked = None, False, False
            case EndAnswer(epoch) if playout.playing == epoch:
                playout.playing, playout.held, playout.ducked = None, False, False
            case FeedSilence(duration_s):
                self.sample += int(duration_s / WINDOW_S) * WINDOW  # comes as windows in a storm, or never
            case _:
                pass

    def _check(self, action: Action) -> None:
        witness, playout = self.witness, self.playout
        match action:
            case RaiseFloor(floor):
                assert floor > witness.floor, "the floor only rises"
                witness.floor = floor
            case QueueSay(epoch):
                self._check_new(epoch)
                witness.queued.add(epoch)
            case BeginAnswer(epoch):
                if epoch not in witness.queued:
                    self._check_new(epoch)
                assert epoch not in witness.begun, "an epoch begins once"
                assert epoch not in witness.ended
                assert epoch >= witness.floor, "what begins may be heard"
                assert not set(witness.begun) - witness.ended, "I3: one epoch is alive"
                witness.begun[epoch] = action
            case ReleaseAnswer(epoch):
                assert witness.begun[epoch].held
                assert epoch not in witness.ended | witness.released
                witness.released.add(epoch)
            case EndAnswer(epoch, _, audible):
                assert epoch in witness.open(), "I5: what ends was begun and ends once"
                assert audible == (epoch in witness.audible), "only what was heard is truncated"
                witness.ended.add(epoch)
                assert playout.playing != epoch or action.ending.value == "completed" or playout.held
            case StartPlayout(epoch):
                assert playout.playing is None, "I3: one epoch is audible"
                assert epoch in witness.open()
                assert epoch not in witness.audible, "I2: an epoch is played once"
                assert not witness.begun[epoch].held or epoch in witness.released, "a guess is not heard"
                witness.audible.add(epoch)
            case HoldPlayout(epoch):
                assert playout.playing == epoch
                assert not playout.held
            case ResumePlayout(epoch):
                assert playout.playing == epoch
                assert playout.held
            case StopPlayout(epoch):
                assert playout.playing == epoch
                assert witness.floor > epoch, "the floor first"
            case _:
                self._check_turn(action)

    def _check_new(self, epoch: int) -> None:
        assert epoch == self.witness.newest_epoch + 1, "epochs rise by one, nobody else hands them out"
        self.witness.newest_epoch = epoch

    def _check_turn(self, action: Action) -> None:
        witness = self.witness
        match action:
            case SpeechStarted(turn):
                assert turn not in witness.committed
                witness.spoken.add(turn)
            case TurnReopened(turn, revision, committed):
                assert committed == (turn in witness.committed), "only a committed turn is withdrawn"
                if committed:
                    earlier = witness.committed.pop(turn)
                    assert revision > earlier.revision
                    assert turn == max((turn, *witness.committed)), "only the newest turn is reopened"
            case TurnCommitted(turn):
                assert turn not in witness.committed, "a turn is committed once"
                assert all(turn > other for other in witness.committed)
                for other in witness.committed.values():
                    assert action.from_sample >= other.end_sample or action.from_sample == action.end_sample
                assert 0 <= action.from_sample <= action.end_sample <= self.sample
                manual = self.machine.settings.policy.value == "manual"
                assert action.typed or manual or turn in witness.spoken, "I8: no turn without speech"
                witness.committed[turn] = action
            case TurnDropped(turn):
                assert turn in witness.spoken or turn in witness.committed, "what was never a turn is not dropped"
                witness.committed.pop(turn, None)
            case _:
                pass

    def _check_after(self, event: Event, actions: Sequence[Action]) -> None:
        machine, witness = self.machine, self.witness
        state = machine.state
        changed = [action.state for action in actions if isinstance(action, StateChanged)]
        assert not changed or changed[-1] is state
        assert state is not State.INTERRUPTED, "passed through, never stayed in"
        assert machine.floor == witness.floor
        due_s = machine.due_s
        assert state in _QUIET or due_s is not None, f"I4: no timer in {state}"
        assert due_s is None or due_s <= self.now_s + _LONGEST_WAIT_S, "I4: a timer that is none"
        wanted = machine.wanted_epoch
        if wanted is not None:
            assert wanted >= machine.floor, "what is wanted may be heard"
        assert witness.open() - witness.queued <= {wanted}, "what was begun and is not wanted has ended"
        assert (state in (State.SPEAKING, State.HOLD)) == (self.playout.playing is not None)
        assert (state is State.HOLD) == self.playout.held
        assert state is not State.CLOSED or not witness.open()
        assert (
            actions
            or not isinstance(event, Typed)
            or state
            in (
                State.CONNECTING,
                State.SUSPENDED,
                State.CLOSING,
                State.CLOSED,
            )
        ), "a typed turn is always answered"


Happening = Callable[[World, random.Random], None]


def _epoch(world: World, chance: random.Random) -> int:
    """Mostly the one that is wanted, now and then a stale one or one that never was."""
    wanted = world.machine.wanted_epoch
    if wanted is None or chance.random() < 0.1:
        return chance.randint(0, world.machine.epoch + 2)
    return wanted


def _speak(world: World, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 3, 8, 20))):
        world.window(chance.random() < 0.95, echo=chance.random() < 0.03)


def _be_silent(world: World, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 5, 8, 20, 60))):
        world.window(chance.random() < 0.02)


def _make_sound(world: World, chance: random.Random) -> None:
    epoch = _epoch(world, chance)
    made = world.playout.made
    made[epoch] = made.get(epoch, 0) + chance.choice((1, 4, 40)) * BLOCK_SAMPLES
    world.tell(AudioReady(epoch))


def _drain(world: World, chance: random.Random) -> None:
    epoch = _epoch(world, chance)
    if epoch == world.playout.playing and chance.random() < 0.9:
        world.playout.sent[epoch] = world.playout.made.get(epoch, 0)
    world.tell(PlayoutDrained(epoch))


def _judge(world: World, chance: random.Random) -> None:
    world.tell(TurnJudged(world.machine.turn + chance.choice((0, 0, 0, 1)), chance.randint(0, 2), chance.random()))


def _come_back(world: World, chance: random.Random) -> None:
    world.tell(TransportLost())
    world.wait(chance.choice((0.1, 5.0, 29.0, 31.0)))
    world.tell(Connected())


HAPPENINGS: dict[str, tuple[float, Happening]] = {
    "speak": (6, _speak),
    "be silent": (6, _be_silent),
    "wait": (2, lambda world, chance: world.wait(chance.choice((0.01, 0.1, 0.5, 1.5, 4.0, 20.0)))),
    "stall": (1, lambda world, chance: world.tell(Tick(), chance.choice((0.2, 2.0, 10.0)))),
    "judge": (3, _judge),
    "text": (4, lambda world, chance: world.tell(AnswerText(_epoch(world, chance)))),
    "sound": (6, _make_sound),
    "progress": (4, lambda world, chance: world.tell(PlayoutProgress(_epoch(world, chance)), 0.1)),
    "drain": (3, _drain),
    "tool": (0.5, lambda world, chance: world.tell(AnswerBusy(_epoch(world, chance)))),
    "fail": (1, lambda world, chance: world.tell(AnswerFailed(_epoch(world, chance), chance.random() < 0.3))),
    "empty": (0.7, lambda world, chance: world.tell(TurnEmpty(_epoch(world, chance)))),
    "overlap": (
        1,
        lambda world, chance: world.tell(OverlapJudged(_epoch(world, chance), chance.choice(list(Overlap)))),
    ),
    "type": (1, lambda world, chance: world.tell(Typed())),
    "commit": (0.7, lambda world, chance: world.tell(CommitInput())),
    "clear": (0.4, lambda world, chance: world.tell(ClearInput())),
    "request": (0.5, lambda world, chance: world.tell(AnswerRequested())),
    "interrupt": (0.7, lambda world, chance: world.tell(Interrupt())),
    "say": (1, lambda world, chance: world.tell(Say(chance.random() < 0.6))),
    "echo": (0.3, lambda world, chance: world.tell(EchoReport(chance.random() < 0.5, chance.random() < 0.3))),
    "lose": (0.3, _come_back),
    "connect": (0.3, lambda world, chance: world.tell(Connected())),
    "drain session": (0.02, lambda world, chance: world.tell(Drain())),
    "released": (0.1, lambda world, chance: world.tell(Released())),
}


def happen(world: World, name: str, chance: random.Random) -> None:
    """One of `HAPPENINGS`."""
    HAPPENINGS[name][1](world, chance)


def storm(numbers: TurnSettings, seed: int, events: int) -> set[State]:
    """So many happenings, in one conversation after another; each must come to rest. The states that they came into."""
    chance, visited = random.Random(seed), set[State]()
    names, weights = list(HAPPENINGS), [weight for weight, _ in HAPPENINGS.values()]
    world = World(numbers)
    world.tell(Connected())
    for name in chance.choices(names, weights, k=events):
        happen(world, name, chance)
        visited.add(world.machine.state)
        if world.machine.state is State.CLOSED:
            world.settle()
            world = World(numbers)
            world.tell(Connected())
    world.settle()
    return visited
