"""Every number of the turn machine and what belongs to it, in one place. Pure: no file, no environment.

Origin of the defaults: a survey of the peers and measurements of November 2026 (the rules carry the survey's numbers
in `table.py`). Seconds unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

from services.gateway.turns.states import BargeIn, Policy


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """How a conversation takes turns; replaced as a whole, in mid-conversation too. ValueError where it cannot work."""

    policy: Policy = Policy.SERVER_VAD
    create_response: bool = True  # a committed turn is answered by itself
    interrupt_response: bool = True  # speech may interrupt the agent
    barge_in: BargeIn = BargeIn.PAUSE

    # the user begins
    preroll_s: float = 0.3  # sound before the first voiced window that belongs to the turn: soft onsets
    start_speech_s: float = 0.064  # voiced this much: it is speech (2 windows: 1 false start in 65 s of noise)
    candidate_lapse_s: float = 0.16  # silence after which a candidate is over
    min_turn_speech_s: float = 0.12  # voiced less than this in the whole turn: noise, no turn

    # the user ends
    soft_end_s: float = 0.128  # silence that may be the end: judge it, begin an answer
    complete_delay_s: float = 0.16  # silence that ends a turn which the model holds complete (p ≥ complete_p)
    unsure_delay_s: float = 0.4
    incomplete_delay_s: float = 1.2  # p < incomplete_p
    max_delay_s: float = 2.0  # silence that ends any turn
    complete_p: float = 0.7
    incomplete_p: float = 0.3
    unjudged_p: float = 0.5  # taken until the model has spoken
    learn_pauses: bool = True  # a user who pauses long inside turns gets longer delays
    learning_rate: float = 0.3  # how far each new pause moves what was learned towards it …
    learned_step_s: float = 0.1  # … and no further than this
    confident_floor_s: float = 0.3  # the most that learned pauses delay a turn which the model holds complete
    speculate: bool = True  # begin the answer at the soft end, held
    speculations_per_turn: int = 3
    merge_s: float = 0.8  # speech this soon after the commit, nothing heard yet: the same turn goes on
    max_turn_s: float = 60.0  # a longer turn is committed as it is
    sound_missing_s: float = 1.0  # no sound in mid-speech: as if it were silence

    # the user interrupts
    commit_speech_s: float = 0.24  # voiced this much over the agent: an interruption
    early_s: float = 1.0  # within the first second of an answer the user had not finished …
    early_commit_speech_s: float = 0.096  # … so this much is enough (3 windows: no false start in 65 s of noise)
    echo_guard_s: float = 1.0  # echo cancellation still adapts: this long after the first sound of an answer …
    echo_guard_speech_s: float = 0.064  # … a candidate needs this much, unless no echo comes back at all
    echo_failing_speech_s: float = 0.2  # the same at any time while echo cancellation fails
    wary_after: int = 3  # false interruptions of one answer after which …
    wary_speech_s: float = 0.096  # … a candidate needs this much: somebody types, or coughs
    hold_lapse_s: float = 0.16  # silence in HOLD after which the agent goes on
    hold_s: float = 1.5  # HOLD without a decision
    backchannel_s: float = 0.6  # longer is no "mhm"
    backchannel_lapse_s: float = 0.25  # silence after an "mhm" before the agent goes on
    await_overlap_verdict: bool = False  # a classifier answers `JudgeOverlap`: length decides no sooner than …
    overlap_verdict_s: float = 0.4  # … `backchannel_s`, or so long after they paused
    noise_again_s: float = 2.0  # not understood again so soon: somebody speaks, and length decides
    continue_after_empty: bool = True  # an answer that was interrupted by noise is taken up again

    # the agent answers
    first_text_s: float = 3.0  # nothing from the brain: try again
    first_audio_s: float = 5.0  # nothing to hear: try again
    tool_s: float = 30.0  # how long a tool may take
    stall_s: float = 2.0  # nothing sent in mid-answer: end it
    attempts: int = 2
    apology_s: float = 2.0  # the longest apology; it cannot be interrupted
    queued_says: int = 8  # `Say` waiting for silence; more supersede the oldest

    # the session
    connect_s: float = 30.0
    transport_silence_s: float = 4.0  # for the session: no sound and no sign of life is `TransportLost`
    resume_s: float = 30.0  # a lost transport may come back this long
    answer_on_resume: bool = True  # a turn that was committed and not heard answered is answered then
    user_away_s: float = 15.0  # 0: never
    drain_s: float = 60.0
    close_s: float = 5.0  # releasing takes no longer

    # the first packet (gate.py)
    gate_tokens: int = 3  # tokens before speech begins …
    gate_slow_tokens: int = 8  # … from a brain slower than `gate_gap_s` per token
    gate_gap_s: float = 0.03
    gate_wait_s: float = 0.12  # after the first token, whatever has come will do

    # what goes on (lead.py)
    lead_s: float = 0.24  # sound kept ahead of the play-head
    credit_s: float = 0.5  # how far ahead the stages may work
    prebuffer_s: float = 0.08  # sound before the first sample is played, from a codec faster than `prebuffer_rtf`
    slow_prebuffer_s: float = 0.16
    prebuffer_rtf: float = 0.7
    underrun_s: float = 0.04  # less than this left and nothing due: stop at a boundary
    restart_s: float = 0.12  # go on when this much lies ready
    filler_after_s: float | None = None  # a pause of the brain that a filler may cover; None: never
    leading_silence_s: float = 0.04  # more silence than this before the first sound is cut

    # what was heard (heard.py)
    client_buffer_s: float = 0.08  # between us and the ear, until the client reports it

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value < 86_400:
                raise ValueError(f"{field.name} must be at least 0 and less than a day, got {value}")
        self._ordered("incomplete_p", "complete_p")
        self._ordered("soft_end_s", "max_delay_s")
        self._ordered("complete_delay_s", "unsure_delay_s", "incomplete_delay_s", "max_delay_s")
        self._ordered("commit_speech_s", "backchannel_s")
        self._ordered("underrun_s", "restart_s", "credit_s")
        if self.complete_p > 1 or self.learning_rate > 1:
            raise ValueError("complete_p is a probability, learning_rate a share")
        if self.hold_s <= 0 or self.attempts < 1:
            raise ValueError("hold_s is above 0, attempts at least 1")

    def _ordered(self, *names: str) -> None:
        for low, high in pairwise(names):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not be above {high}")
