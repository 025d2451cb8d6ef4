"""What a conversation tells telemetry, from the orders of the turn machine."""

from __future__ import annotations

from typing import Any

import pytest

from common.stream import FinishReason
from common.telemetry import Attribute, names
from services.gateway.media import playout as media
from services.gateway.session import ports
from services.gateway.session.measures import Measures
from services.gateway.turns import actions, states
from tests.common.test_telemetry import Told, told

__all__ = ["told"]


def ended(ending: states.Ending) -> actions.EndAnswer:
    return actions.EndAnswer(epoch=1, ending=ending, audible=True)


def by(told: Told, name: str, attribute: Attribute) -> dict[str, Any]:
    return {str(point.attributes[attribute]): point.value for point in told.points().get(name, ())}


def silences(told: Told) -> list[float]:
    return [point.sum for point in told.points().get(names.TURN_INTERRUPTION_SILENCE, ())]


def test_an_answer_that_was_held_is_silent_from_then_on_whenever_somebody_is_sure(told: Told) -> None:
    measures = Measures(told.telemetry)
    measures.voice_began(100.0)
    measures.did(actions.HoldPlayout(epoch=1), 100.13)
    measures.did(ended(states.Ending.INTERRUPTED), 100.9)
    assert silences(told) == [pytest.approx(0.13 + ports.BLOCK_S)]
    assert by(told, names.TURN_INTERRUPTIONS, Attribute.VERDICT) == {"interrupted": 1}


def test_an_answer_that_was_not_held_is_silent_when_it_is_ended(told: Told) -> None:
    measures = Measures(told.telemetry)
    measures.did(actions.HoldPlayout(epoch=1), 50.0)  # of an earlier voice
    measures.voice_began(100.0)
    measures.did(ended(states.Ending.INTERRUPTED), 100.3)
    assert silences(told) == [pytest.approx(0.3 + ports.BLOCK_S)]


def test_an_interruption_without_a_voice_has_no_silence_to_measure(told: Told) -> None:
    measures = Measures(told.telemetry)
    measures.did(ended(states.Ending.INTERRUPTED), 100.0)
    assert silences(told) == []
    assert by(told, names.TURN_INTERRUPTIONS, Attribute.VERDICT) == {"interrupted": 1}


def test_false_alarms_backchannels_and_foresight_are_counted_apart(told: Told) -> None:
    measures = Measures(told.telemetry)
    measures.did(actions.FalseInterruption(epoch=1, resumed=True), 1.0)
    measures.did(actions.BackchannelHeard(epoch=1), 2.0)
    measures.did(actions.ReleaseAnswer(epoch=1), 3.0)
    measures.did(ended(states.Ending.WASTED), 4.0)
    measures.did(ended(states.Ending.COMPLETED), 5.0)
    assert by(told, names.TURN_INTERRUPTIONS, Attribute.VERDICT) == {"false_alarm": 1, "backchannel": 1}
    assert by(told, names.TURN_SPECULATIONS, Attribute.OUTCOME) == {"kept": 1, "dropped": 1}


def test_ends_of_answers_and_gaps_in_them_are_counted(told: Told) -> None:
    measures = Measures(told.telemetry)
    measures.told(ports.AnswerEnded(1, 1, FinishReason.COMPLETED, 0, ""))
    measures.told(ports.UserAway())
    measures.played(media.RanDry(1, 4800))
    measures.played(media.WentOn(1, 0.25))
    measures.played(media.Finished(1, 9600))
    assert by(told, names.TURN_ENDED, Attribute.FINISH_REASON) == {"COMPLETED": 1}
    assert by(told, names.PLAYOUT_UNDERRUNS, Attribute.STAGE) == {"gateway": 1}
    assert told.points()[names.PLAYOUT_PAUSE][0].value == 0.25
