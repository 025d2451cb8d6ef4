"""What a session or a configuration asks for, in the turn machine's numbers."""

import pytest
from pydantic import ValidationError
from voicemesh.gateway.v1 import gateway_pb2

from common.errors import InvalidRequest
from common.stage import duration
from services.gateway.config import GatewayConfig
from services.gateway.session.asked import asked_of
from services.gateway.session.ports import TurnDetection
from services.gateway.session.tuning import tuned
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import Policy

DEFAULT = TurnSettings()


def test_what_is_not_asked_for_stays():
    assert tuned(DEFAULT, TurnDetection()) == DEFAULT


@pytest.mark.parametrize("silence_s", [0.0, 0.05, 0.3, 1.5, 5.0, 60.0])
def test_a_silence_that_is_named_is_the_one_that_counts(silence_s):
    settings = tuned(DEFAULT, TurnDetection(mode="server_vad", silence_s=silence_s))
    kept_s = min(max(silence_s, 0.1), 10.0)
    assert {settings.complete_delay_s, settings.unsure_delay_s, settings.incomplete_delay_s} == {kept_s}


def test_eager_sessions_wait_less():
    delays = [
        tuned(DEFAULT, TurnDetection(eagerness=eagerness)).unsure_delay_s for eagerness in ("high", "auto", "low")
    ]
    assert delays == sorted(set(delays))


def test_by_hand_and_without_answers():
    settings = tuned(DEFAULT, TurnDetection(mode="none", create_response=False, interrupt_response=False))
    assert settings.policy is Policy.MANUAL
    assert (settings.create_response, settings.interrupt_response) == (False, False)


def test_numbers_that_cannot_work_are_the_callers_fault():
    with pytest.raises(InvalidRequest):
        tuned(DEFAULT, TurnDetection(idle_timeout_s=-1.0))


def test_a_start_is_read_whole():
    wanted = gateway_pb2.TurnDetection(silence=duration(0.7), no_interruption=True)
    start = gateway_pb2.ConverseStart(turn_detection=wanted, speakable_filter=False, instructions="Be brief.")
    start.sampling.temperature = 0.0
    settings = asked_of(start).settings
    assert settings.turn_detection == TurnDetection(mode="server_vad", silence_s=0.7, interrupt_response=False)
    assert (settings.speakable_filter, settings.temperature, settings.instructions) == (False, 0.0, "Be brief.")
    assert asked_of(gateway_pb2.ConverseStart()).settings.speakable_filter


@pytest.mark.parametrize(
    "wrong",
    [
        {"turn_detection": {"mode": 99}},
        {"turn_detection": {"silence": duration(-1)}},
        {"instructions": "x" * 70_000},
        {"speech": {"max_frames": -1}},
    ],
)
def test_a_start_that_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidRequest):
        asked_of(gateway_pb2.ConverseStart(**wrong))


def test_the_configuration_reaches_the_machine_and_nonsense_stops_the_start():
    config = GatewayConfig(turns={"gate_tokens": 1}, answer_stall_s=7, max_sessions=3)
    manner = config.conversations
    assert (manner.settings.gate_tokens, manner.settings.stall_s, manner.numbers.max_sessions) == (1, 7, 3)
    for nonsense in ({"gait_tokens": 1}, {"complete_delay_s": 5.0}):
        with pytest.raises(ValidationError):
            GatewayConfig(turns=nonsense)
