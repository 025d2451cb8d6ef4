"""The ways from one turn to the next that the rules of both sides share. Pure."""

from __future__ import annotations

from services.gateway.turns.actions import (
    AnswerLost,
    Release,
    ReleaseAnswer,
    SpeechStarted,
    SpeechStopped,
    StartPlayout,
    TurnCommitted,
)
from services.gateway.turns.memory import Memory, Said, Timer, Turn
from services.gateway.turns.states import LISTEN_RATE_HZ, Ending, Kind, State

_APOLOGY_READY_S = 1.0  # ready-made sound: slower than this it will not come


def preroll_sample(memory: Memory, onset_sample: int) -> int:
    """Where the sound of a turn begins whose voice was first seen here; never inside the turn before."""
    return max(onset_sample - round(memory.settings.preroll_s * LISTEN_RATE_HZ), memory.claimed_sample, 0)


def new_turn(memory: Memory, from_sample: int) -> Turn:
    """The next turn, not yet spoken."""
    now_sample = memory.voice.now_sample
    return Turn(memory.turns + 1, from_sample, memory.now_s, speech_end_sample=now_sample, end_sample=now_sample)


def open_turn(memory: Memory) -> None:
    """2: the candidate is speech: a new turn."""
    voice = memory.voice
    assert voice.from_sample is not None, "voice was heard"
    turn = new_turn(memory, preroll_sample(memory, voice.from_sample))
    memory.out.append(SpeechStarted(turn.number, turn.revision, turn.from_sample))
    go_on_with(memory, turn)


def go_on_with(memory: Memory, turn: Turn) -> None:
    """The user speaks (again): the candidate, if there is one, is of this turn."""
    memory.turn = turn
    if memory.voice.from_sample is not None:
        turn.voiced_samples += memory.voice.voiced_samples
        turn.speech_end_sample = memory.voice.last_voiced_sample
    memory.voice.forget()
    memory.enter(State.USER_SPEAKING)
    memory.arm(Timer.SOUND, memory.settings.sound_missing_s)
    memory.timers[Timer.MAX_TURN] = max(turn.began_s + memory.settings.max_turn_s, memory.now_s)


def close_turn(memory: Memory) -> Turn | None:
    """Take the open turn, if there is one, as it is now; an answer begun to it is not to what it has become."""
    turn, memory.turn = memory.turn, None
    if turn is None:
        return None
    if memory.said is not None and memory.said.held:
        memory.end(Ending.WASTED)
    turn.end_sample = memory.voice.now_sample
    memory.out.append(SpeechStopped(turn.number, turn.speech_end_sample))
    return turn


def commit(memory: Memory, turn: Turn) -> None:
    """5: the turn is the user's last word; answer it."""
    settings, said = memory.settings, memory.said
    memory.turn, memory.owed = None, None
    memory.committed = turn
    memory.turns = turn.number
    memory.claimed_sample = turn.end_sample
    turn.committed_s = memory.now_s
    if said is None and settings.create_response:
        epoch: int | None = memory.epoch + 1
    else:
        epoch = said.epoch if said else None
    memory.out.append(
        TurnCommitted(turn.number, turn.revision, turn.from_sample, turn.end_sample, turn.typed, turn.forced, epoch)
    )
    if said is not None:
        release(memory, said)
    elif settings.create_response:
        answer(memory, turn)
    else:
        rest(memory)


def release(memory: Memory, said: Said) -> None:
    """5: what was begun in case is the answer."""
    said.held = False
    memory.out.append(ReleaseAnswer(said.epoch))
    think(memory)
    if said.drained:
        memory.end(Ending.COMPLETED)
        rest(memory)
    elif said.failed and not said.ready:
        fail(memory)
    elif said.ready:
        start(memory, said)


def think(memory: Memory, state: State = State.THINKING) -> None:
    """Wait for the first sound of what was begun."""
    said, settings = memory.said, memory.settings
    assert said is not None, "something was begun"
    memory.enter(state)
    if said.kind in (Kind.ANSWER, Kind.CONTINUATION) and not said.has_text:
        memory.arm(Timer.FIRST_TEXT, settings.first_text_s)
    memory.arm(Timer.FIRST_AUDIO, _APOLOGY_READY_S if said.kind is Kind.APOLOGY else settings.first_audio_s)


def start(memory: Memory, said: Said) -> None:
    """7: let it be heard."""
    said.audible = True
    said.first_sound_s = memory.now_s
    memory.cut = None
    if said.kind is Kind.ANSWER:
        memory.endpoint.observe_end()
    memory.out.append(StartPlayout(said.epoch))
    memory.enter(State.SPEAKING)
    watch(memory, said)
    if said.kind is Kind.APOLOGY:
        memory.arm(Timer.APOLOGY, memory.settings.apology_s)


def watch(memory: Memory, said: Said) -> None:
    """14: something is sent, or a tool runs, or it ends."""
    memory.timers[Timer.STALL] = max(memory.now_s + memory.settings.stall_s, said.busy_until_s)


def fail(memory: Memory) -> None:
    """17: try again once, then apologise, then give up."""
    said = memory.said
    assert said is not None, "something was awaited"
    memory.end(Ending.FAILED)
    if said.kind in (Kind.SAY, Kind.APOLOGY):
        rest(memory)
        return
    if said.attempt < memory.settings.attempts:
        memory.begin(said.kind, said.turn, attempt=said.attempt + 1, continues=said.continues)
    else:
        memory.out.append(AnswerLost(said.turn.number if said.turn else memory.turns))
        memory.begin(Kind.APOLOGY, said.turn, interruptible=False)
    think(memory, State.RECOVERING)


def answer(memory: Memory, turn: Turn | None) -> None:
    """Begin an answer, not held."""
    memory.begin(Kind.ANSWER, turn)
    think(memory)


def take_over(memory: Memory, turn: Turn) -> None:
    """A turn that came at once: what the agent says gives way to it, or must be heard first."""
    memory.voice.forget()
    turn.by_hand = True
    said = memory.said
    if said is not None and not said.interruptible:
        memory.committed = turn
        memory.owed = turn if memory.settings.create_response else None
        memory.turns = turn.number
        memory.claimed_sample = turn.end_sample
        memory.out.append(TurnCommitted(turn.number, turn.revision, turn.from_sample, turn.end_sample, turn.typed))
        return
    if said is not None:
        memory.end(Ending.INTERRUPTED if said.audible else Ending.SUPERSEDED)
    memory.cut = None
    commit(memory, turn)


def rest(memory: Memory) -> None:
    """Nothing is being said: what comes next, in the order of who has waited."""
    if memory.draining and memory.turn is None and memory.owed is None:
        shut(memory)
    elif memory.turn is not None:
        memory.voice.forget()  # what was said meanwhile has been counted
        go_on_with(memory, memory.turn)
    elif memory.owed is not None:
        turn, memory.owed = memory.owed, None
        answer(memory, turn)
    elif memory.says:
        waiting = memory.says.popleft()
        memory.begin(waiting.kind, memory.committed, epoch=waiting.epoch, interruptible=waiting.interruptible)
        think(memory)
    else:
        memory.enter(State.LISTENING)
        if memory.settings.user_away_s:
            memory.arm(Timer.AWAY, memory.settings.user_away_s)
        if memory.voice.from_sample is not None:
            memory.expect_lapse()


def after_nothing(memory: Memory) -> None:
    """6: there was no turn. What it had interrupted is taken up again."""
    cut, memory.cut = memory.cut, None
    if cut is None or not memory.settings.continue_after_empty or memory.draining:
        rest(memory)
        return
    memory.begin(Kind.CONTINUATION, cut.turn, continues=cut.epoch)
    think(memory)


def shut(memory: Memory, ending: Ending = Ending.CANCELLED) -> None:
    """The conversation is over: end everything, then release."""
    memory.end(ending)
    memory.end_says(ending)
    memory.enter(State.CLOSING)
    memory.disarm(Timer.DRAIN)
    memory.arm(Timer.CLOSE, memory.settings.close_s)
    memory.out.append(Release())
