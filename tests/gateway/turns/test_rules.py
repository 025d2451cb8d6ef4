"""Each rule of the turn machine once, in its plainest form; the numbers are those of the table in its README."""

from __future__ import annotations

import pytest

from services.gateway.turns.actions import (
    AnswerLost,
    BackchannelHeard,
    BeginAnswer,
    CandidateChanged,
    EndAnswer,
    FalseInterruption,
    FeedSilence,
    HoldPlayout,
    JudgeOverlap,
    JudgeTurn,
    OverlapPaused,
    QueueSay,
    RaiseFloor,
    Release,
    ReleaseAnswer,
    ResumePlayout,
    SpeechStarted,
    SpeechStopped,
    StartPlayout,
    StopPlayout,
    TurnCommitted,
    TurnDropped,
    TurnReopened,
    UserAway,
)
from services.gateway.turns.events import (
    AnswerBusy,
    AnswerFailed,
    AnswerRequested,
    AnswerText,
    AudioReady,
    ClearInput,
    Close,
    CommitInput,
    Connected,
    Drain,
    EchoReport,
    Interrupt,
    OverlapJudged,
    PlayoutDrained,
    PlayoutProgress,
    Released,
    Say,
    TransportLost,
    TurnEmpty,
    TurnJudged,
    Typed,
)
from services.gateway.turns.states import BargeIn, Ending, Kind, Overlap, Policy, State
from tests.gateway.turns.talk import WINDOW, WINDOW_S, Talk

# ---------------------------------------------------------------- the user begins


def test_rule_1_one_window_of_voice_is_a_candidate_and_no_speech() -> None:
    talk = Talk()
    talk.pause(0.96)
    talk.window(True)
    assert talk.one(CandidateChanged) == CandidateChanged(True, talk.sample - WINDOW - 4800)
    assert talk.state is State.LISTENING


def test_rule_1_a_candidate_that_lapses_leaves_no_trace() -> None:
    talk = Talk()
    talk.window(True)
    talk.pause(0.2)
    assert [candidate.active for candidate in talk.of(CandidateChanged)] == [True, False]
    assert talk.states() == [State.LISTENING]
    assert not talk.of(SpeechStarted)
    assert not talk.of(BeginAnswer)


def test_rule_1_a_candidate_without_more_windows_is_forgotten() -> None:
    talk = Talk()
    talk.window(True)
    talk.wait(0.6)
    assert [candidate.active for candidate in talk.of(CandidateChanged)] == [True, False]
    talk.window(True)
    assert talk.state is State.LISTENING


def test_rule_2_two_windows_of_voice_are_speech_with_its_preroll() -> None:
    talk = Talk()
    talk.pause(0.96)
    talk.speak(0.064)
    assert talk.one(SpeechStarted) == SpeechStarted(1, 0, talk.sample - 2 * WINDOW - 4800)
    assert talk.state is State.USER_SPEAKING


# ---------------------------------------------------------------- the user ends


def test_rule_3_a_short_silence_is_judged_and_answered_in_case() -> None:
    talk = Talk()
    talk.speak(0.64)
    end = talk.sample
    talk.pause(0.128)
    assert talk.one(JudgeTurn) == JudgeTurn(1, 0, 0, end + 4 * WINDOW)
    assert talk.one(BeginAnswer) == BeginAnswer(1, Kind.ANSWER, 1, held=True)
    assert talk.state is State.ENDPOINTING
    assert not talk.of(TurnCommitted)


def test_rule_3_guesses_are_limited() -> None:
    talk = Talk()
    for _ in range(4):
        talk.speak(0.32)
        talk.pause(0.192)
    assert len(talk.of(BeginAnswer)) == 3
    talk.pause(0.5)
    assert [begun.held for begun in talk.begun()] == [True, True, True, False]


def test_rule_4_a_click_in_a_silence_is_no_speech() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.window(True)
    assert talk.state is State.ENDPOINTING
    talk.pause(0.192)
    talk.window(True)
    assert not talk.of(TurnReopened)


def test_rule_4_the_turn_ends_where_it_went_on_to() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.256)
    talk.speak(0.064)
    end = talk.sample
    talk.pause(0.5)
    assert talk.one(SpeechStopped).end_sample == end


def test_rule_4_speech_after_a_short_silence_is_the_same_turn() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.256)
    talk.speak(0.064)
    assert talk.one(EndAnswer) == EndAnswer(1, Ending.WASTED, audible=False)
    assert talk.one(RaiseFloor) == RaiseFloor(2)
    assert talk.one(TurnReopened) == TurnReopened(1, 1, committed=False)
    assert talk.state is State.USER_SPEAKING
    assert talk.machine.learned_pause_s > 0


@pytest.mark.parametrize(("p_complete", "silence_s"), [(0.9, 0.16), (0.5, 0.4), (0.1, 1.2)])
def test_rule_5_the_model_decides_how_long_a_silence_ends_the_turn(p_complete: float, silence_s: float) -> None:
    talk = Talk()
    talk.speak(0.64)
    end = talk.sample
    talk.pause(0.128)
    talk.tell(TurnJudged(1, 0, p_complete))
    talk.pause(2.0)
    committed = next(action for action in talk.did if isinstance(action, TurnCommitted))
    at = talk.did.index(committed)
    assert isinstance(talk.did[at - 1], SpeechStopped)
    assert talk.one(SpeechStopped).end_sample == end
    assert committed == TurnCommitted(1, 0, 0, end + 4 * WINDOW, epoch=1)
    assert talk.one(ReleaseAnswer) == ReleaseAnswer(1)
    assert talk.state is State.THINKING
    assert silence_s <= _silence_before(talk, p_complete) < silence_s + WINDOW_S


def _silence_before(talk: Talk, p_complete: float) -> float:
    """How much silence was heard when a fresh machine, told the same, commits."""
    fresh = Talk()
    fresh.speak(0.64)
    fresh.pause(0.128)
    fresh.tell(TurnJudged(1, 0, p_complete))
    silent = 4
    while not fresh.of(TurnCommitted):
        fresh.window(False)
        silent += 1
    return silent * WINDOW_S


def test_rule_5_a_verdict_that_comes_late_commits_at_once() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.256)
    assert talk.state is State.ENDPOINTING
    talk.tell(TurnJudged(1, 0, 0.95))
    assert talk.state is State.THINKING


def test_rule_5_a_verdict_about_an_earlier_revision_counts_for_nothing() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.256)
    talk.speak(0.128)
    talk.pause(0.192)
    talk.tell(TurnJudged(1, 0, 0.95))
    assert talk.state is State.ENDPOINTING


def test_rule_5_an_answer_that_was_ready_in_case_is_heard_with_the_commit() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.tell(AnswerText(1))
    talk.tell(AudioReady(1))
    assert not talk.of(StartPlayout)
    talk.tell(TurnJudged(1, 0, 0.95))
    talk.pause(0.032)
    assert talk.states()[-2:] == [State.THINKING, State.SPEAKING]
    assert talk.one(StartPlayout) == StartPlayout(1)


def test_rule_5_the_clock_ends_a_turn_whose_windows_stopped_coming() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.wait(2.1)
    assert talk.of(FeedSilence)
    assert talk.one(TurnCommitted).turn == 1


def test_rule_6_a_click_is_no_turn() -> None:
    talk = Talk()
    talk.speak(0.096)
    talk.pause(0.5)
    assert talk.one(TurnDropped) == TurnDropped(1)
    assert talk.state is State.LISTENING
    assert not talk.of(TurnCommitted)
    assert not talk.of(BeginAnswer)


def test_rule_6_a_guess_that_nothing_was_said_drops_the_turn_when_it_is_over() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.tell(TurnEmpty(talk.wanted))
    assert talk.state is State.ENDPOINTING
    talk.pause(0.5)
    assert talk.one(EndAnswer).ending is Ending.EMPTY
    assert not talk.of(TurnCommitted)


def test_rule_6_what_noise_interrupted_is_taken_up_again() -> None:
    talk = Talk()
    first = talk.answer()
    talk.speak(0.32)
    talk.pause(0.5)
    assert talk.state is State.THINKING
    talk.did.clear()
    talk.tell(TurnEmpty(talk.wanted))
    assert talk.one(TurnDropped) == TurnDropped(2)
    continuation = talk.one(BeginAnswer)
    assert (continuation.kind, continuation.continues, continuation.turn) == (Kind.CONTINUATION, first, 1)


def test_rule_6_what_was_interrupted_before_another_answer_stays_so() -> None:
    talk = Talk()
    talk.answer()
    talk.speak(0.32)
    talk.pause(0.5)
    talk.tell(AudioReady(talk.wanted))
    talk.tell(PlayoutDrained(talk.wanted))
    talk.speak(0.096)
    talk.pause(0.5)
    assert talk.state is State.LISTENING


def test_rule_6_what_noise_interrupts_again_is_taken_up_again() -> None:
    talk = Talk()
    first = talk.answer()
    for _ in range(2):
        talk.speak(0.32)
        talk.pause(0.5)
        talk.tell(TurnEmpty(talk.wanted))
        talk.pause(0.9)
        talk.speak(0.064)
        talk.pause(0.5)
    assert talk.state is State.THINKING
    assert {begun.continues for begun in talk.begun() if begun.kind is Kind.CONTINUATION} == {first}


# ---------------------------------------------------------------- the agent answers


def test_rule_7_the_answer_is_heard_when_it_is_ready() -> None:
    talk = Talk()
    epoch = talk.ask()
    talk.tell(AudioReady(epoch))
    assert talk.one(StartPlayout) == StartPlayout(epoch)
    assert talk.state is State.SPEAKING


def test_rule_7_the_answer_waits_while_somebody_may_be_speaking() -> None:
    talk = Talk()
    epoch = talk.ask()
    talk.window(True)
    talk.tell(AudioReady(epoch))
    talk.pause(0.128)
    assert not talk.of(StartPlayout)
    talk.pause(0.032)
    assert talk.one(StartPlayout) == StartPlayout(epoch)


def test_rule_8_speech_right_after_the_commit_goes_on_with_the_same_turn() -> None:
    talk = Talk()
    epoch = talk.ask()
    talk.did.clear()
    talk.speak(0.064)
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.SUPERSEDED, audible=False)
    assert talk.one(TurnReopened) == TurnReopened(1, 1, committed=True)
    assert not talk.of(StopPlayout)
    assert talk.machine.learned_pause_s > 0
    talk.speak(0.3)
    talk.pause(0.5)
    assert talk.one(TurnCommitted).turn == 1
    assert talk.one(TurnCommitted).from_sample == 0


def test_rule_8_speech_later_is_a_new_turn() -> None:
    talk = Talk()
    epoch = talk.ask()
    talk.pause(0.9)
    talk.did.clear()
    talk.speak(0.064)
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.SUPERSEDED, audible=False)
    assert talk.one(SpeechStarted).turn == 2


def test_rule_8_an_answer_that_noise_prevented_is_begun_again() -> None:
    talk = Talk()
    talk.ask()
    talk.pause(0.9)
    talk.did.clear()
    talk.speak(0.064)
    talk.pause(0.5)
    assert talk.one(TurnDropped) == TurnDropped(2)
    assert talk.one(BeginAnswer).turn == 1
    assert talk.state is State.THINKING


def test_rule_8_an_answer_that_noise_prevented_is_not_begun_again_if_nobody_wants_it() -> None:
    talk = Talk()
    talk.ask()
    talk.pause(0.9)
    talk.speak(0.064)
    talk.tell(Interrupt())
    talk.pause(0.5)
    assert talk.state is State.LISTENING


def test_rule_8_a_turn_that_the_client_committed_is_over() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.tell(CommitInput())
    talk.speak(0.064)
    assert not talk.of(TurnReopened)
    assert [started.turn for started in talk.of(SpeechStarted)] == [1, 2]


# ---------------------------------------------------------------- the user interrupts


def test_rule_9_the_first_window_of_voice_mutes_the_agent() -> None:
    talk = Talk()
    epoch = talk.answer()
    actions = talk.window(True)
    assert HoldPlayout(epoch) in actions
    assert talk.of(JudgeOverlap) == [JudgeOverlap(epoch, talk.sample - WINDOW)]
    assert talk.state is State.HOLD
    assert not talk.of(RaiseFloor)


def test_rule_9_our_own_echo_is_no_candidate() -> None:
    talk = Talk()
    talk.answer()
    for _ in range(20):
        talk.window(True, echo=True)
    assert talk.state is State.SPEAKING


def test_rule_9_in_the_first_second_a_candidate_needs_two_windows() -> None:
    talk = Talk()
    talk.tell(AudioReady(talk.ask()))
    talk.window(True)
    assert talk.state is State.SPEAKING
    talk.window(True)
    assert talk.state is State.HOLD


def test_rule_9_two_windows_long_after_each_other_are_two_clicks() -> None:
    talk = Talk()
    talk.tell(AudioReady(talk.ask()))
    for _ in range(2):
        talk.window(True)
        talk.pause(0.192)
    assert not talk.of(HoldPlayout)


def test_rule_9_the_first_second_is_like_any_other_where_no_echo_comes_back() -> None:
    talk = Talk()
    talk.tell(EchoReport(present=False))
    talk.tell(AudioReady(talk.ask()))
    talk.window(True)
    assert talk.state is State.HOLD


def test_rule_9_failing_echo_cancellation_asks_for_more_voice() -> None:
    talk = Talk()
    talk.tell(EchoReport(present=True, failing=True))
    talk.answer()
    talk.speak(0.192)
    assert talk.state is State.SPEAKING
    talk.speak(0.032)
    assert talk.state is State.HOLD


def test_rule_9_what_must_be_heard_is_not_muted() -> None:
    talk = Talk()
    talk.tell(Say(interruptible=False))
    talk.tell(AudioReady(talk.wanted))
    talk.speak(0.64)
    assert talk.state is State.SPEAKING
    talk.tell(PlayoutDrained(talk.wanted))
    talk.window(True)
    assert talk.state is State.USER_SPEAKING
    assert talk.one(SpeechStarted).from_sample == 0


def test_rule_9_a_click_over_what_must_be_heard_is_forgotten() -> None:
    talk = Talk()
    talk.tell(Say(interruptible=False))
    talk.tell(AudioReady(talk.wanted))
    talk.window(True)
    talk.pause(0.192)
    talk.tell(PlayoutDrained(talk.wanted))
    talk.window(True)
    assert talk.state is State.LISTENING


def test_rule_9_ducking_mutes_nothing() -> None:
    talk = Talk(barge_in=BargeIn.DUCK)
    epoch = talk.answer()
    talk.window(True)
    assert talk.one(HoldPlayout) == HoldPlayout(epoch, duck=True)


def test_rule_9_confirming_only_stops_the_agent_with_the_interruption() -> None:
    talk = Talk(barge_in=BargeIn.CONFIRM_ONLY)
    epoch = talk.answer()
    talk.speak(0.224)
    assert talk.state is State.SPEAKING
    talk.speak(0.032)
    assert not talk.of(HoldPlayout)
    assert StopPlayout(epoch) in talk.did
    assert talk.state is State.USER_SPEAKING


def test_rule_10_enough_voice_is_an_interruption_in_this_order() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.did.clear()
    onset = talk.sample
    talk.speak(0.256)
    kinds = [type(action).__name__ for action in talk.did]
    assert kinds == [
        *("CandidateChanged", "HoldPlayout", "JudgeOverlap", "StateChanged"),
        *("RaiseFloor", "StopPlayout", "EndAnswer", "StateChanged", "SpeechStarted", "StateChanged"),
    ]
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.INTERRUPTED, audible=True)
    assert talk.states() == [State.HOLD, State.INTERRUPTED, State.USER_SPEAKING]
    assert talk.one(SpeechStarted).from_sample == onset - 4800


def test_rule_10_in_the_first_second_less_voice_is_enough() -> None:
    talk = Talk()
    talk.tell(AudioReady(talk.ask()))
    talk.speak(0.096)
    assert talk.state is State.USER_SPEAKING


def test_rule_10_a_classifier_may_know_sooner() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.window(True)
    talk.tell(OverlapJudged(epoch, Overlap.INTERRUPT))
    assert talk.state is State.USER_SPEAKING


def test_rule_11_a_cough_mutes_the_agent_for_a_moment_only() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.speak(0.096)
    talk.pause(0.16)
    assert talk.one(ResumePlayout) == ResumePlayout(epoch)
    assert talk.one(FalseInterruption) == FalseInterruption(epoch, resumed=True)
    assert [candidate.active for candidate in talk.of(CandidateChanged)] == [True, True, False]
    assert talk.state is State.SPEAKING
    assert len(talk.of(SpeechStarted)) == 1
    assert len(talk.of(TurnCommitted)) == 1


def test_rule_11_who_keeps_coughing_mutes_the_agent_less_easily() -> None:
    talk = Talk()
    talk.answer()
    for _ in range(3):
        talk.speak(0.032)
        talk.keep_playing(0.5)
    assert len(talk.of(FalseInterruption)) == 3
    talk.speak(0.064)
    assert talk.state is State.SPEAKING
    talk.speak(0.032)
    assert talk.state is State.HOLD


def test_rule_12_a_backchannel_is_no_turn() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.speak(0.192)
    talk.tell(OverlapJudged(epoch, Overlap.BACKCHANNEL))
    talk.speak(0.256)
    assert talk.state is State.HOLD
    talk.pause(0.256)
    assert talk.one(BackchannelHeard) == BackchannelHeard(epoch)
    assert talk.state is State.SPEAKING
    assert not talk.of(FalseInterruption)


def test_rule_12_a_long_backchannel_is_an_interruption() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.window(True)
    talk.tell(OverlapJudged(epoch, Overlap.BACKCHANNEL))
    talk.speak(0.6)
    assert talk.state is State.USER_SPEAKING


def asked_over(voiced_s: float, paused_s: float = 0.16) -> tuple[Talk, int]:
    """Somebody spoke for so long over an answer, then paused; whoever knows the words was asked."""
    talk = Talk(await_overlap_verdict=True)
    epoch = talk.answer()
    talk.speak(voiced_s)
    assert talk.state is State.HOLD
    talk.pause(paused_s)
    assert talk.one(OverlapPaused) == OverlapPaused(epoch)
    assert talk.state is State.HOLD
    return talk, epoch


def test_rule_12_a_yes_that_was_understood_does_not_interrupt() -> None:
    talk, epoch = asked_over(0.48)
    talk.tell(OverlapJudged(epoch, Overlap.BACKCHANNEL))
    talk.pause(0.16)
    assert talk.one(BackchannelHeard) == BackchannelHeard(epoch)
    assert talk.state is State.SPEAKING


def test_rule_12_a_stop_that_was_understood_does() -> None:
    talk, epoch = asked_over(0.2)
    talk.tell(OverlapJudged(epoch, Overlap.INTERRUPT))
    assert talk.state is State.USER_SPEAKING
    assert talk.of(EndAnswer)[-1].ending is Ending.INTERRUPTED


def test_rule_11_noise_of_any_length_resumes() -> None:
    talk, epoch = asked_over(0.48)
    talk.tell(OverlapJudged(epoch, Overlap.NOISE))
    talk.pause(0.032)
    assert talk.one(FalseInterruption) == FalseInterruption(epoch, resumed=True)


@pytest.mark.parametrize(("pause_s", "state"), [(0.5, State.USER_SPEAKING), (2.5, State.HOLD)])
def test_rule_12_what_nobody_understands_is_noise_once_but_not_twice_at_once(pause_s: float, state: State) -> None:
    talk, epoch = asked_over(0.48)
    talk.tell(OverlapJudged(epoch, Overlap.NOISE))
    talk.keep_playing(pause_s)
    talk.speak(0.48)
    talk.pause(0.16)
    talk.tell(OverlapJudged(epoch, Overlap.NOISE))
    assert talk.state is state


@pytest.mark.parametrize(("voiced_s", "state"), [(0.2, State.SPEAKING), (0.48, State.USER_SPEAKING)])
def test_rule_12_without_a_verdict_length_decides(voiced_s: float, state: State) -> None:
    talk, _ = asked_over(voiced_s)
    talk.pause(0.35)
    assert talk.state is State.HOLD
    talk.wait(0.1)
    assert talk.state is state


def test_rule_10_whoever_goes_on_interrupts_whatever_was_understood() -> None:
    talk, epoch = asked_over(0.48)
    talk.speak(0.16)
    assert talk.state is State.USER_SPEAKING
    assert talk.of(EndAnswer)[-1] == EndAnswer(epoch, Ending.INTERRUPTED, audible=True)


def test_rule_13_a_hold_without_more_windows_is_decided_by_the_clock() -> None:
    talk = Talk()
    talk.answer()
    talk.window(True)
    talk.window(False)
    talk.wait(1.6)
    assert talk.of(ResumePlayout)
    spoken_over = Talk()
    spoken_over.answer()
    spoken_over.window(True)
    spoken_over.wait(1.6)
    assert State.INTERRUPTED in spoken_over.states()


# ---------------------------------------------------------------- the answer goes on and ends


def test_rule_14_a_tool_may_take_longer_than_a_stall() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.tell(AnswerBusy(epoch))
    talk.tell(PlayoutProgress(epoch))
    talk.wait(20)
    assert talk.state is State.SPEAKING
    talk.tell(AnswerText(epoch))
    talk.tell(PlayoutProgress(epoch))
    talk.wait(2.1)
    assert talk.one(EndAnswer).ending is Ending.INCOMPLETE


def test_rule_15_an_answer_that_was_heard_is_complete() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.tell(PlayoutDrained(epoch))
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.COMPLETED, audible=True)
    assert not talk.of(RaiseFloor)
    assert talk.state is State.LISTENING


def test_rule_15_an_answer_without_a_sound_is_complete_too() -> None:
    talk = Talk()
    epoch = talk.ask()
    talk.tell(PlayoutDrained(epoch))
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.COMPLETED, audible=False)
    assert talk.state is State.LISTENING


def test_rule_15_a_guess_without_a_sound_is_complete_with_its_turn() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.tell(PlayoutDrained(talk.wanted))
    assert talk.state is State.ENDPOINTING
    talk.pause(0.5)
    assert talk.one(EndAnswer) == EndAnswer(1, Ending.COMPLETED, audible=False)
    assert talk.state is State.LISTENING


def test_rule_15_whoever_began_to_speak_at_the_end_is_listened_to() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.window(True)
    talk.tell(PlayoutDrained(epoch))
    assert talk.one(EndAnswer).ending is Ending.COMPLETED
    assert talk.state is State.LISTENING
    talk.did.clear()
    talk.wait(0.6)
    assert talk.of(CandidateChanged) == [CandidateChanged(False, talk.sample)]
    again = Talk()
    epoch = again.answer()
    again.window(True)
    again.tell(PlayoutDrained(epoch))
    again.window(True)
    assert again.state is State.USER_SPEAKING


def test_rule_16_the_client_silences_without_a_turn() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.did.clear()
    talk.tell(Interrupt())
    assert [type(action) for action in talk.did[:3]] == [RaiseFloor, StopPlayout, EndAnswer]
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.CANCELLED, audible=True)
    assert talk.state is State.LISTENING


def test_rule_16_the_client_silences_what_waits_too() -> None:
    talk = Talk()
    talk.answer()
    talk.tell(Say())
    talk.tell(Interrupt())
    assert [ended.ending for ended in talk.of(EndAnswer)] == [Ending.CANCELLED, Ending.CANCELLED]
    assert talk.state is State.LISTENING


def test_rule_17_a_silent_brain_is_asked_again_and_then_apologised_for() -> None:
    talk = Talk()
    first = talk.ask()
    talk.did.clear()
    talk.wait(3.1)
    retry = talk.one(BeginAnswer)
    assert (retry.epoch, retry.attempt, talk.state) == (first + 1, 2, State.RECOVERING)
    talk.did.clear()
    talk.wait(3.1)
    assert talk.one(AnswerLost) == AnswerLost(1)
    apology = talk.one(BeginAnswer)
    assert apology.kind is Kind.APOLOGY
    talk.tell(AudioReady(apology.epoch))
    talk.speak(0.64)
    assert talk.state is State.SPEAKING


def test_rule_17_an_apology_is_short() -> None:
    talk = Talk()
    for _ in range(2):
        talk.tell(AnswerFailed(talk.wanted if talk.machine.wanted_epoch else talk.ask()))
    talk.tell(AudioReady(talk.wanted))
    talk.keep_playing(1.9)
    assert talk.state is State.SPEAKING
    talk.keep_playing(0.1)
    talk.wait(0.1)
    assert talk.state is State.LISTENING


def test_rule_17_what_cannot_be_done_is_not_tried_again() -> None:
    talk = Talk()
    epoch = talk.ask()
    talk.did.clear()
    talk.tell(AnswerFailed(epoch, hopeless=True))
    assert [begun.kind for begun in talk.begun()] == [Kind.APOLOGY]
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.FAILED, audible=False)


def test_rule_17_a_guess_that_cannot_be_done_is_not_tried_again_either() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.14)
    talk.tell(AnswerFailed(talk.wanted, hopeless=True))
    talk.pause(0.5)
    assert [begun.kind for begun in talk.begun()] == [Kind.ANSWER, Kind.APOLOGY]


def test_rule_17_text_without_sound_is_too_little() -> None:
    talk = Talk()
    epoch = talk.ask()
    talk.tell(AnswerText(epoch))
    talk.wait(4.9)
    assert talk.state is State.THINKING
    talk.wait(0.2)
    assert talk.state is State.RECOVERING


def test_rule_17_a_guess_that_has_text_already_is_waited_for() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.tell(AnswerText(talk.wanted))
    talk.pause(0.3)
    assert talk.state is State.THINKING
    talk.wait(4.9)
    assert talk.state is State.THINKING
    talk.wait(0.2)
    assert talk.state is State.RECOVERING


def test_rule_17_what_is_to_be_said_needs_no_brain() -> None:
    talk = Talk()
    talk.tell(Say())
    talk.wait(4.9)
    assert talk.state is State.THINKING
    talk.wait(0.2)
    assert talk.one(EndAnswer).ending is Ending.FAILED
    assert talk.state is State.LISTENING


def test_rule_18_an_answer_that_stalls_ends_incomplete() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.wait(2.1)
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.INCOMPLETE, audible=True)
    assert talk.state is State.LISTENING


def test_rule_18_text_does_not_keep_a_silent_answer_alive() -> None:
    talk = Talk()
    epoch = talk.answer()
    for _ in range(3):
        talk.wait(0.8)
        talk.tell(AnswerText(epoch))
    assert talk.one(EndAnswer).ending is Ending.INCOMPLETE


def test_rule_18_an_answer_that_fails_is_heard_as_far_as_it_came() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.tell(AnswerFailed(epoch))
    assert talk.state is State.SPEAKING
    talk.tell(PlayoutDrained(epoch))
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.INCOMPLETE, audible=True)


# ---------------------------------------------------------------- the session's life


def test_rule_19_a_lost_transport_suspends_whatever_goes_on() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.tell(TransportLost())
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.SUSPENDED, audible=True)
    assert talk.state is State.SUSPENDED


def test_rule_19_a_turn_in_mid_speech_is_lost_with_the_transport() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.tell(TransportLost())
    assert talk.one(TurnDropped) == TurnDropped(1)
    talk.tell(Connected())
    assert talk.state is State.LISTENING


def test_rule_20_who_comes_back_hears_nothing_of_before() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.tell(TransportLost())
    talk.tell(Connected(), after_s=10)
    assert talk.state is State.LISTENING
    assert talk.machine.floor > epoch


def test_rule_20_voice_of_before_does_not_count() -> None:
    talk = Talk()
    talk.window(True)
    talk.tell(TransportLost())
    talk.tell(Connected())
    talk.window(True)
    assert talk.state is State.LISTENING


def test_rule_20_a_question_that_was_not_answered_is_answered_then() -> None:
    talk = Talk()
    talk.ask()
    talk.tell(TransportLost())
    talk.did.clear()
    talk.tell(Connected(), after_s=10)
    assert talk.one(BeginAnswer).turn == 1
    assert talk.state is State.THINKING


def test_rule_21_who_does_not_come_back_is_released() -> None:
    talk = Talk()
    talk.tell(TransportLost())
    talk.wait(30.1)
    assert talk.one(Release) == Release()
    assert talk.state is State.CLOSING


def test_rule_22_sound_that_stops_in_mid_speech_ends_the_turn() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.wait(1.1)
    assert talk.of(FeedSilence) == [FeedSilence(1.0)]
    assert talk.state is State.ENDPOINTING
    talk.pause(1.0)
    assert talk.one(TurnCommitted).turn == 1


def test_rule_22_sound_may_stop_with_the_first_syllable() -> None:
    talk = Talk()
    talk.speak(0.064)
    talk.wait(1.1)
    assert talk.of(FeedSilence) == [FeedSilence(1.0)]


def test_rule_22_silence_that_keeps_coming_is_not_missing() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.tell(TurnJudged(1, 0, 0.1))
    talk.pause(1.5)
    assert talk.of(TurnCommitted)
    assert not talk.of(FeedSilence)


def test_rule_22_sound_that_keeps_coming_is_not_missing() -> None:
    talk = Talk()
    talk.speak(3.0)
    assert talk.state is State.USER_SPEAKING
    assert not talk.of(FeedSilence)


def test_rule_23_a_turn_that_never_ends_is_committed() -> None:
    talk = Talk()
    talk.speak(60.2)
    assert talk.one(TurnCommitted).forced
    assert 59 * 16_000 < talk.one(TurnCommitted).end_sample <= talk.sample
    talk.speak(0.64)
    assert talk.state is State.THINKING
    talk.pause(0.2)
    talk.speak(0.064)
    assert talk.state is State.USER_SPEAKING


def test_rule_24_silence_for_long_is_told_once() -> None:
    talk = Talk()
    talk.wait(40)
    assert talk.one(UserAway) == UserAway()
    assert talk.state is State.LISTENING


# ---------------------------------------------------------------- typed, committed, requested, said


def test_a_typed_turn_is_answered_at_once() -> None:
    talk = Talk()
    talk.tell(Typed())
    assert talk.one(TurnCommitted) == TurnCommitted(1, 0, 0, 0, typed=True, epoch=1)
    assert talk.state is State.THINKING


def test_a_typed_turn_silences_the_agent() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.did.clear()
    talk.tell(Typed())
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.INTERRUPTED, audible=True)
    assert talk.one(TurnCommitted).turn == 2


def test_a_typed_turn_takes_along_what_is_being_spoken() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.tell(Typed())
    committed = talk.one(TurnCommitted)
    assert (committed.turn, committed.end_sample, committed.typed) == (1, talk.sample, True)
    assert talk.one(SpeechStopped) == SpeechStopped(1, talk.sample)


def test_a_typed_turn_makes_the_guess_about_what_was_spoken_useless() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.128)
    talk.tell(Typed())
    assert talk.one(EndAnswer) == EndAnswer(1, Ending.WASTED, audible=False)
    assert talk.one(TurnCommitted).epoch == 2


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_typed_turn_is_answered_after_what_must_be_heard(by_itself: bool) -> None:
    talk = Talk(create_response=by_itself)
    talk.tell(Say(interruptible=False))
    talk.tell(AudioReady(talk.wanted))
    talk.tell(Typed())
    assert talk.one(TurnCommitted).epoch is None
    talk.tell(PlayoutDrained(talk.wanted))
    assert [begun.kind for begun in talk.begun()] == [Kind.SAY, *([Kind.ANSWER] if by_itself else [])]


def test_by_hand_nothing_ends_a_turn_but_the_client() -> None:
    talk = Talk(policy=Policy.MANUAL)
    talk.speak(0.64)
    talk.pause(3.0)
    assert talk.state is State.LISTENING
    talk.tell(CommitInput())
    committed = talk.one(TurnCommitted)
    assert (committed.from_sample, committed.end_sample) == (0, talk.sample)
    assert talk.one(SpeechStopped).end_sample == talk.sample
    assert talk.states() == [State.LISTENING, State.THINKING]
    talk.tell(CommitInput())
    assert len(talk.of(TurnCommitted)) == 1


def test_by_hand_cleared_sound_belongs_to_no_turn() -> None:
    talk = Talk(policy=Policy.MANUAL)
    talk.speak(0.64)
    talk.tell(ClearInput())
    cleared = talk.sample
    talk.speak(0.32)
    talk.tell(CommitInput())
    assert talk.one(TurnCommitted).from_sample == cleared


def test_a_duplex_model_is_neither_held_nor_cut() -> None:
    talk = Talk(policy=Policy.MODEL_DUPLEX)
    talk.speak(1.0)
    assert talk.state is State.LISTENING
    talk.tell(AnswerRequested())
    talk.tell(AudioReady(talk.wanted))
    talk.speak(1.0)
    assert talk.state is State.SPEAKING
    assert not talk.of(HoldPlayout)


def test_a_turn_is_not_answered_by_itself_where_the_client_asks_for_answers() -> None:
    talk = Talk(create_response=False)
    talk.speak(0.64)
    talk.pause(0.5)
    assert talk.one(TurnCommitted).epoch is None
    assert talk.state is State.LISTENING
    talk.tell(AnswerRequested())
    assert talk.one(BeginAnswer).turn == 1


def test_speech_does_not_interrupt_where_it_must_not() -> None:
    talk = Talk(interrupt_response=False)
    epoch = talk.answer()
    talk.speak(1.0)
    assert talk.state is State.SPEAKING
    talk.tell(PlayoutDrained(epoch))
    talk.window(True)
    assert talk.state is State.USER_SPEAKING


def test_something_to_say_waits_politely() -> None:
    talk = Talk()
    talk.speak(0.32)
    talk.tell(Say())
    assert talk.one(QueueSay) == QueueSay(talk.machine.epoch)
    talk.tell(ClearInput())
    assert talk.one(BeginAnswer).kind is Kind.SAY


def test_too_much_to_say_gives_up_the_oldest() -> None:
    talk = Talk(queued_says=2)
    talk.speak(0.32)
    for _ in range(3):
        talk.tell(Say())
    assert talk.one(EndAnswer) == EndAnswer(1, Ending.SUPERSEDED, audible=False)


def test_what_is_said_over_a_turn_counts_its_voice_once() -> None:
    talk = Talk()
    talk.speak(0.064)
    talk.tell(Say(interruptible=False))
    talk.tell(AudioReady(talk.wanted))
    talk.tell(PlayoutDrained(talk.wanted))
    talk.pause(0.5)
    assert talk.one(TurnDropped) == TurnDropped(1)


def test_something_to_say_is_given_up_when_the_next_turn_is_answered_before() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.tell(Say())
    epoch = talk.machine.epoch
    talk.pause(0.128)
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.SUPERSEDED, audible=False)


def test_what_must_be_said_takes_the_place_of_the_answer() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.did.clear()
    talk.tell(Say(interruptible=False))
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.SUPERSEDED, audible=True)
    assert talk.one(BeginAnswer).epoch == talk.machine.epoch == epoch + 1
    talk.tell(AudioReady(epoch + 1))
    talk.tell(PlayoutDrained(epoch + 1))
    assert talk.state is State.LISTENING


@pytest.mark.parametrize("policy", [Policy.SERVER_VAD, Policy.MANUAL])
@pytest.mark.parametrize("more", [True, False])
def test_something_to_say_waits_for_a_candidate_to_lapse(policy: Policy, more: bool) -> None:
    talk = Talk(policy=policy)
    talk.window(True)
    talk.tell(Say())
    assert not talk.of(BeginAnswer)
    if more:
        talk.pause(0.2)
    else:
        talk.wait(0.6)
    assert talk.one(BeginAnswer).kind is Kind.SAY


def test_what_must_be_said_takes_the_place_of_an_answer_for_a_while_only() -> None:
    talk = Talk()
    talk.ask()
    talk.did.clear()
    talk.tell(Say(interruptible=False))
    talk.tell(AudioReady(talk.wanted))
    talk.tell(PlayoutDrained(talk.wanted))
    assert [begun.kind for begun in talk.begun()] == [Kind.SAY, Kind.ANSWER]


def test_what_must_be_said_does_not_swallow_the_turn_it_speaks_over() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.tell(Say(interruptible=False))
    talk.tell(AudioReady(talk.wanted))
    talk.pause(0.32)
    talk.tell(PlayoutDrained(talk.wanted))
    assert talk.state is State.USER_SPEAKING
    talk.pause(0.5)
    assert talk.one(TurnCommitted).turn == 1


def test_what_is_said_before_what_must_be_said_begins_is_of_the_turn() -> None:
    talk = Talk()
    talk.speak(0.096)
    talk.tell(Say(interruptible=False))
    talk.speak(0.32)
    talk.tell(AudioReady(talk.wanted))
    talk.tell(PlayoutDrained(talk.wanted))
    talk.pause(0.5)
    assert talk.one(TurnCommitted).turn == 1


def test_what_is_cleared_brings_nothing_back() -> None:
    talk = Talk()
    talk.answer()
    talk.speak(0.32)
    talk.tell(ClearInput())
    assert talk.state is State.LISTENING


def test_a_turn_is_cleared_while_something_is_said_over_it() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.tell(Say(interruptible=False))
    talk.tell(AudioReady(talk.wanted))
    talk.tell(ClearInput())
    assert talk.one(TurnDropped) == TurnDropped(1)
    talk.tell(PlayoutDrained(talk.wanted))
    assert talk.state is State.LISTENING


def test_clearing_forgets_a_candidate_but_not_what_holds_the_agent() -> None:
    talk = Talk()
    talk.window(True)
    talk.tell(ClearInput())
    talk.window(True)
    assert talk.state is State.LISTENING
    held = Talk()
    held.answer()
    held.window(True)
    held.tell(ClearInput())
    held.speak(0.224)
    assert held.state is State.USER_SPEAKING


def test_draining_lets_speech_finish() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.tell(Drain())
    assert talk.state is State.SPEAKING
    talk.tell(PlayoutDrained(epoch))
    assert talk.state is State.CLOSING
    talk.tell(Released())
    assert talk.state is State.CLOSED
    assert talk.machine.due_s is None


def test_draining_and_closing_give_up_what_waits() -> None:
    for event in (Drain(), Close()):
        talk = Talk()
        epoch = talk.answer()
        talk.tell(Say())
        talk.tell(event)
        assert EndAnswer(epoch + 1, Ending.CANCELLED, audible=False) in talk.did


def test_draining_closes_what_is_silent_at_once() -> None:
    talk = Talk()
    talk.tell(Drain())
    assert talk.state is State.CLOSING


def test_draining_does_not_wait_for_ever() -> None:
    talk = Talk(stall_s=100)
    talk.answer()
    talk.tell(Drain())
    talk.wait(60.1)
    assert talk.state is State.CLOSING


def test_closing_ends_everything_at_once() -> None:
    talk = Talk()
    epoch = talk.answer()
    talk.tell(Close())
    assert talk.one(EndAnswer) == EndAnswer(epoch, Ending.CANCELLED, audible=True)
    talk.wait(5.1)
    assert talk.state is State.CLOSED


def test_nobody_who_never_connects_is_waited_for_for_ever() -> None:
    talk = Talk(connect=False)
    assert talk.state is State.CONNECTING
    talk.wait(30.1)
    assert talk.state is State.CLOSING
