"""The rules of the user's side: speech begins, pauses, ends, was none after all; typed and committed turns. Pure.

A rule is a function of the memory and the event; `table.py` says when it runs.
"""

from __future__ import annotations

from services.gateway.turns import candidate, flow
from services.gateway.turns.actions import FeedSilence, JudgeTurn, SpeechStopped, TurnDropped, TurnReopened
from services.gateway.turns.events import ClearInput, CommitInput, TurnEmpty, TurnJudged, Typed, VoiceWindow
from services.gateway.turns.memory import Cut, Memory, Timer, Turn
from services.gateway.turns.states import LISTEN_RATE_HZ, Ending, Kind, Policy, State


def listen(memory: Memory, window: VoiceWindow) -> None:
    """1, 2: voice while nobody speaks."""
    voice = memory.voice
    voiced = voice.hear(window)
    if memory.settings.policy is not Policy.SERVER_VAD:
        if voice.lapse(memory.settings.candidate_lapse_s) and memory.says:
            flow.rest(memory)
        return
    if voiced:
        candidate.watch(memory)
        if voice.voiced_s >= memory.settings.start_speech_s:
            flow.open_turn(memory)
    elif candidate.lapse(memory) and memory.says:
        flow.rest(memory)


def follow_speech(memory: Memory, window: VoiceWindow) -> None:
    """3: the user speaks; a silence may be the end."""
    turn = _turn(memory)
    memory.arm(Timer.SOUND, memory.settings.sound_missing_s)
    if memory.voice.hear(window):
        turn.voiced_samples += window.sample_count
        turn.speech_end_sample = window.end_sample
    elif memory.voice.silent_s >= memory.settings.soft_end_s:
        soft_end(memory)


def soft_end(memory: Memory) -> None:
    """3: judge the silence, and begin to answer as if it were the end."""
    turn, settings = _turn(memory), memory.settings
    turn.end_sample = memory.voice.now_sample
    turn.p_complete = None
    memory.voice.forget()
    memory.out.append(JudgeTurn(turn.number, turn.revision, turn.from_sample, turn.end_sample))
    if (
        settings.speculate
        and settings.create_response
        and turn.speculations < settings.speculations_per_turn
        and turn.voiced_s >= settings.min_turn_speech_s
    ):
        turn.speculations += 1
        memory.begin(Kind.ANSWER, turn, held=True)
    memory.enter(State.ENDPOINTING)
    memory.arm(Timer.COMMIT, settings.max_delay_s)
    memory.arm(Timer.SOUND, settings.sound_missing_s)


def sound_missing(memory: Memory) -> None:
    """22: no sound in mid-speech, a microphone that was muted: as if silence had come."""
    memory.out.append(FeedSilence(memory.settings.sound_missing_s))
    if memory.state is State.USER_SPEAKING:
        soft_end(memory)


def await_end(memory: Memory, window: VoiceWindow) -> None:
    """4, 5: the silence goes on, or the user does."""
    turn, settings = _turn(memory), memory.settings
    memory.arm(Timer.SOUND, settings.sound_missing_s)
    if memory.voice.hear(window):
        if memory.voice.voiced_s >= settings.start_speech_s:
            reopen(memory)
        return
    memory.voice.lapse(settings.candidate_lapse_s)
    if _silent_long_enough(memory, turn):
        end_of_turn(memory)


def judged(memory: Memory, event: TurnJudged) -> None:
    """5: the turn model has spoken."""
    turn = _turn(memory)
    if (event.turn, event.revision) != (turn.number, turn.revision):
        return
    turn.p_complete = event.p_complete
    if not memory.voice.sounding and _silent_long_enough(memory, turn):
        end_of_turn(memory)


def _silent_long_enough(memory: Memory, turn: Turn) -> bool:
    silent_s = (memory.voice.now_sample - turn.speech_end_sample) / LISTEN_RATE_HZ
    return silent_s >= memory.endpoint.delay_s(turn.p_complete, memory.settings)


def reopen(memory: Memory) -> None:
    """4: the user had not finished."""
    turn = _turn(memory)
    assert memory.voice.from_sample is not None, "voice was heard"
    pause_s = (memory.voice.from_sample - turn.speech_end_sample) / LISTEN_RATE_HZ
    memory.endpoint.observe_pause(pause_s, memory.settings)
    memory.end(Ending.WASTED)
    turn.revision += 1
    memory.out.append(TurnReopened(turn.number, turn.revision, committed=False))
    flow.go_on_with(memory, turn)


def end_of_turn(memory: Memory, *, forced: bool = False) -> None:
    """5, 6, 23: commit what was said, if it was anything."""
    turn = _turn(memory)
    empty = memory.said is not None and memory.said.empty
    if empty or turn.voiced_s < memory.settings.min_turn_speech_s:
        drop_turn(memory)
        return
    memory.out.append(SpeechStopped(turn.number, turn.speech_end_sample))
    turn.forced = forced
    flow.commit(memory, turn)


def turn_too_long(memory: Memory) -> None:
    """23: commit it as it is; what is said on counts again after a pause."""
    turn = _turn(memory)
    turn.end_sample = memory.voice.now_sample
    memory.voice.ignore()
    end_of_turn(memory, forced=True)


def drop_turn(memory: Memory) -> None:
    """6: it was noise. What it interrupted goes on."""
    turn = _turn(memory)
    memory.turn = None
    memory.end(Ending.EMPTY)
    memory.out.append(TurnDropped(turn.number))
    flow.after_nothing(memory)


def turn_empty(memory: Memory, event: TurnEmpty) -> None:
    """6: nothing intelligible was in it, says who listened; while it is a guess, more of the turn may come."""
    said = memory.alive(event.epoch)
    if said is None or said.audible or said.kind is not Kind.ANSWER or said.turn is None or said.turn.typed:
        return
    if said.held:
        said.empty = True
        return
    memory.end(Ending.EMPTY)
    memory.out.append(TurnDropped(said.turn.number))
    flow.after_nothing(memory)


def typed(memory: Memory, event: Typed) -> None:
    """A typed turn: whatever is spoken of a turn joins it; what the agent says gives way, unless it must be heard."""
    turn = flow.close_turn(memory) or flow.new_turn(memory, memory.voice.now_sample)
    turn.typed = True
    flow.take_over(memory, turn)


def commit_input(memory: Memory, event: CommitInput) -> None:
    """The client ends the turn."""
    turn = flow.close_turn(memory)
    if turn is None:
        if memory.settings.policy is not Policy.MANUAL or memory.voice.now_sample <= memory.claimed_sample:
            return
        earliest = memory.voice.now_sample - round(memory.settings.max_turn_s * LISTEN_RATE_HZ)
        turn = flow.new_turn(memory, max(memory.claimed_sample, earliest))
        memory.out.append(SpeechStopped(turn.number, turn.speech_end_sample))
    flow.take_over(memory, turn)


def clear_input(memory: Memory, event: ClearInput) -> None:
    """What was said and not committed is forgotten."""
    memory.claimed_sample = memory.voice.now_sample
    if memory.state is not State.HOLD:  # there it is decided as ever whether the agent goes on
        memory.voice.forget()
    if memory.turn is None:
        return
    if memory.state in (State.USER_SPEAKING, State.ENDPOINTING):
        memory.cut = None
        drop_turn(memory)
    else:
        memory.out.append(TurnDropped(memory.turn.number))
        memory.turn = None


def speak_before_answer(memory: Memory, window: VoiceWindow) -> None:
    """8: the user goes on before anything of the answer was heard."""
    voice, said, settings = memory.voice, memory.said, memory.settings
    assert said is not None, "an answer is awaited"
    if not (said.interruptible and settings.interrupt_response and settings.policy is Policy.SERVER_VAD):
        candidate.listen_along(memory, window)
        return
    if voice.hear(window):
        candidate.watch(memory)
        if voice.voiced_s >= settings.start_speech_s:
            user_goes_on(memory)
    elif candidate.lapse(memory) and said.ready:
        flow.start(memory, said)


def candidate_gone(memory: Memory) -> None:
    """1, 8: windows stopped coming; what waited for the candidate waits no longer."""
    candidate.forget(memory)
    if memory.said is not None and memory.said.ready:
        flow.start(memory, memory.said)
    elif memory.says and memory.state is State.LISTENING:
        flow.rest(memory)


def user_goes_on(memory: Memory) -> None:
    """8: the same turn, if it was committed just now; otherwise a new one."""
    said, voice = memory.said, memory.voice
    assert said is not None, "an answer is awaited"
    assert voice.from_sample is not None, "voice was heard"
    turn = said.turn if said.kind is Kind.ANSWER else None
    memory.end(Ending.SUPERSEDED)
    mergeable = turn is not None and turn is memory.committed and not turn.by_hand and not turn.forced
    if turn is None or not mergeable or memory.now_s - turn.committed_s >= memory.settings.merge_s:
        memory.owed = turn  # if it was noise, it is taken up again
        memory.cut = None if said.continues is None else Cut(said.continues, said.turn)
        flow.open_turn(memory)
        return
    memory.endpoint.observe_pause((voice.from_sample - turn.speech_end_sample) / LISTEN_RATE_HZ, memory.settings)
    turn.revision += 1
    memory.out.append(TurnReopened(turn.number, turn.revision, committed=True))
    flow.go_on_with(memory, turn)


def _turn(memory: Memory) -> Turn:
    assert memory.turn is not None, "the user is speaking"
    return memory.turn
