"""The moves that all rules about the user's voice share: a candidate is told, and told to be over. Pure."""

from __future__ import annotations

from services.gateway.turns import flow
from services.gateway.turns.actions import CandidateChanged
from services.gateway.turns.events import VoiceWindow
from services.gateway.turns.memory import Memory, Timer


def tell(memory: Memory) -> None:
    """Tell once that somebody may be speaking."""
    voice = memory.voice
    if voice.from_sample is not None and not voice.told:
        voice.told = True
        memory.out.append(CandidateChanged(True, flow.preroll_sample(memory, voice.from_sample)))


def watch(memory: Memory) -> None:
    """Voice was heard: tell it, and wait for what comes of it no longer than windows could take."""
    tell(memory)
    memory.expect_lapse()


def lapse(memory: Memory) -> bool:
    """Whether the candidate, if any, is over now."""
    told = memory.voice.told
    if not memory.voice.lapse(memory.settings.candidate_lapse_s):
        return False
    memory.disarm(Timer.CANDIDATE)
    if told:
        memory.out.append(CandidateChanged(False, memory.voice.now_sample))
    return True


def forget(memory: Memory) -> None:
    """It was nothing, or is of no interest any more."""
    if memory.voice.told:
        memory.out.append(CandidateChanged(False, memory.voice.now_sample))
    memory.voice.forget()
    memory.disarm(Timer.CANDIDATE)


def listen_along(memory: Memory, window: VoiceWindow) -> None:
    """Somebody speaks over what must not be interrupted: nothing is lost of a turn that was going on."""
    voiced = memory.voice.hear(window)
    if memory.turn is None:
        memory.voice.lapse(memory.settings.candidate_lapse_s)
    elif voiced:
        memory.turn.voiced_samples += window.sample_count
        memory.turn.speech_end_sample = window.end_sample
