"""The rules of the agent's side: it thinks, speaks, is held, interrupted, resumed, fails. Pure.

A rule is a function of the memory and the event; `table.py` says when it runs.
"""

from __future__ import annotations

from services.gateway.turns import candidate, flow
from services.gateway.turns.actions import (
    BackchannelHeard,
    CandidateChanged,
    FalseInterruption,
    HoldPlayout,
    JudgeOverlap,
    OverlapPaused,
    ResumePlayout,
    StateChanged,
)
from services.gateway.turns.events import (
    AnswerBusy,
    AnswerFailed,
    AnswerText,
    AudioReady,
    EchoReport,
    OverlapJudged,
    PlayoutDrained,
    PlayoutProgress,
    VoiceWindow,
)
from services.gateway.turns.memory import Cut, Memory, Said, Timer
from services.gateway.turns.states import BargeIn, Ending, Kind, Overlap, Policy, State


def text_came(memory: Memory, event: AnswerText) -> None:
    """The brain lives, and its tool is done; text alone is no sign that anything is heard."""
    said = memory.alive(event.epoch)
    if said is None:
        return
    memory.disarm(Timer.FIRST_TEXT)
    said.has_text = True
    if said.busy_until_s and Timer.STALL in memory.timers:
        memory.arm(Timer.STALL, memory.settings.stall_s)
    said.busy_until_s = 0.0


def tool_runs(memory: Memory, event: AnswerBusy) -> None:
    """A tool may take its time."""
    said = memory.alive(event.epoch)
    if said is None or said.held:
        return
    said.busy_until_s = memory.now_s + memory.settings.tool_s
    for timer in (Timer.FIRST_TEXT, Timer.FIRST_AUDIO, Timer.STALL):
        if timer in memory.timers:
            memory.arm(timer, memory.settings.tool_s)


def audio_ready(memory: Memory, event: AudioReady) -> None:
    """7: it can be heard, unless it is only a guess, or somebody may be speaking just now."""
    said = memory.alive(event.epoch)
    if said is None or said.audible:
        return
    said.ready = True
    if said.held:
        return
    if memory.voice.told and Timer.CANDIDATE in memory.timers:
        memory.disarm(Timer.FIRST_TEXT, Timer.FIRST_AUDIO)  # the candidate's timer takes over
        return
    flow.start(memory, said)


def progress(memory: Memory, event: PlayoutProgress) -> None:
    """14: it is being heard."""
    said = memory.alive(event.epoch)
    if said is not None and said.audible:
        flow.watch(memory, said)


def drained(memory: Memory, event: PlayoutDrained) -> None:
    """15: all of it was heard (in HOLD: its end had been sent before), or there is nothing to hear."""
    said = memory.alive(event.epoch)
    if said is None:
        return
    said.drained = True
    if said.held:
        return
    memory.end(Ending.INCOMPLETE if said.failed and said.audible else Ending.COMPLETED)
    flow.rest(memory)


def failed(memory: Memory, event: AnswerFailed) -> None:
    """17: a stage gave up. What is ready still plays."""
    said = memory.alive(event.epoch)
    if said is None:
        return
    said.failed = True
    if event.hopeless:
        said.attempt = memory.settings.attempts
    if not said.held and not said.ready:
        flow.fail(memory)


def first_sound_missing(memory: Memory) -> None:
    """17: nothing came in time."""
    flow.fail(memory)


def stalled(memory: Memory) -> None:
    """18: nothing was sent for long: it ends here."""
    memory.end(Ending.INCOMPLETE)
    flow.rest(memory)


def apology_over(memory: Memory) -> None:
    """17: however long it is, it is over."""
    stalled(memory)


def overlap(memory: Memory, window: VoiceWindow) -> None:
    """9: voice while the agent speaks."""
    said, settings, voice = memory.said, memory.settings, memory.voice
    assert said is not None, "something is being said"
    if not (said.interruptible and settings.interrupt_response and settings.policy is Policy.SERVER_VAD):
        candidate.listen_along(memory, window)
        return
    if not voice.hear(window):
        candidate.lapse(memory)
        return
    if voice.voiced_s < _candidate_speech_s(memory, said):
        return
    candidate.tell(memory)
    said.hold_early = memory.now_s - said.first_sound_s < settings.early_s
    if settings.barge_in is BargeIn.CONFIRM_ONLY:
        if voice.voiced_s >= _interrupting_speech_s(memory, said):
            interrupt(memory)
        return
    assert voice.from_sample is not None, "voice was heard"
    said.verdict = None
    memory.out.append(HoldPlayout(said.epoch, duck=settings.barge_in is BargeIn.DUCK))
    memory.out.append(JudgeOverlap(said.epoch, voice.from_sample))
    memory.enter(State.HOLD)
    memory.arm(Timer.HOLD, settings.hold_s)
    if voice.voiced_s >= _interrupting_speech_s(memory, said):
        interrupt(memory)


def _candidate_speech_s(memory: Memory, said: Said) -> float:
    """9: how much voice is a candidate; one window is, unless it may be our own echo, or was nothing too often."""
    settings = memory.settings
    need_s = 0.0
    if memory.echo_present and memory.now_s - said.first_sound_s < settings.echo_guard_s:
        need_s = settings.echo_guard_speech_s
    if said.false_holds >= settings.wary_after:
        need_s = max(need_s, settings.wary_speech_s)
    return max(need_s, settings.echo_failing_speech_s) if memory.echo_failing else need_s


def _interrupting_speech_s(memory: Memory, said: Said) -> float:
    """10, 12: how much voice is an interruption."""
    settings = memory.settings
    if said.verdict is not None or (settings.await_overlap_verdict and not said.hold_early):
        return settings.backchannel_s
    return _certain_speech_s(memory, said)


def _certain_speech_s(memory: Memory, said: Said) -> float:
    """10: the same where length is all that is known."""
    settings = memory.settings
    need_s = settings.early_commit_speech_s if said.hold_early else settings.commit_speech_s
    return max(need_s, settings.echo_failing_speech_s) if memory.echo_failing else need_s


def decide(memory: Memory, window: VoiceWindow) -> None:
    """10, 11, 12: it goes on and is an interruption, or stops and was none."""
    said, voice, settings = memory.said, memory.voice, memory.settings
    assert said is not None, "something is being held"
    if voice.hear(window):
        memory.disarm(Timer.VERDICT)
        if voice.voiced_s >= _interrupting_speech_s(memory, said):
            interrupt(memory)
    elif said.verdict is Overlap.BACKCHANNEL:
        if voice.silent_s >= settings.backchannel_lapse_s:
            resume(memory)
    elif voice.silent_s >= settings.hold_lapse_s:
        if said.verdict is None and settings.await_overlap_verdict:
            _want_verdict(memory, said)
        else:
            resume(memory)


def _want_verdict(memory: Memory, said: Said) -> None:
    """12: what was it? Asked once a pause; the answer may take a while."""
    if Timer.VERDICT not in memory.timers:
        memory.arm(Timer.VERDICT, memory.settings.overlap_verdict_s)
        memory.out.append(OverlapPaused(said.epoch))


def verdict_missing(memory: Memory) -> None:
    """12: nobody knows, so length decides."""
    assert memory.said is not None, "something is being held"
    if memory.voice.voiced_s >= _certain_speech_s(memory, memory.said):
        interrupt(memory)
    else:
        resume(memory)


def overlap_judged(memory: Memory, event: OverlapJudged) -> None:
    """10, 12: a classifier knows."""
    said = memory.alive(event.epoch)
    if said is None:
        return
    memory.disarm(Timer.VERDICT)
    if event.verdict is Overlap.INTERRUPT or _is_no_noise(memory, said, event.verdict):
        interrupt(memory)
    else:
        said.verdict = event.verdict


def _is_no_noise(memory: Memory, said: Said, verdict: Overlap) -> bool:
    """12: what nobody understands once may be a cough; whoever goes on with it speaks."""
    is_again = memory.now_s - said.noise_s < memory.settings.noise_again_s
    long_enough = memory.voice.voiced_s >= _certain_speech_s(memory, said)
    return verdict is Overlap.NOISE and is_again and long_enough


def undecided(memory: Memory) -> None:
    """13: too long in doubt."""
    if memory.voice.sounding:
        interrupt(memory)
    else:
        resume(memory)


def resume(memory: Memory) -> None:
    """11, 12: go on where it stopped."""
    said = memory.said
    assert said is not None, "something is being held"
    memory.out.append(ResumePlayout(said.epoch))
    if said.verdict is Overlap.BACKCHANNEL:
        memory.out.append(BackchannelHeard(said.epoch))
    else:
        if said.verdict is Overlap.NOISE:
            said.noise_s = memory.now_s
        said.false_holds += 1
        memory.out.append(FalseInterruption(said.epoch, resumed=True))
    memory.voice.forget()
    memory.out.append(CandidateChanged(False, memory.voice.now_sample))
    memory.enter(State.SPEAKING)
    flow.watch(memory, said)


def interrupt(memory: Memory) -> None:
    """10: the user has the floor."""
    said = memory.said
    assert said is not None, "something was being said"
    memory.end(Ending.INTERRUPTED)
    memory.cut = Cut(said.epoch, said.turn) if said.kind in (Kind.ANSWER, Kind.CONTINUATION) else None
    memory.out.append(StateChanged(State.INTERRUPTED, memory.turn_number, said.epoch))
    flow.open_turn(memory)


def echo(memory: Memory, event: EchoReport) -> None:
    """9: what echo cancellation knows."""
    memory.echo_present, memory.echo_failing = event.present, event.failing
