"""What `/v1/latency` shows: the last turns, whole, and honest quantiles."""

from __future__ import annotations

import pytest

from common.errors import Broken
from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.realtime.board import LatencyBoard, quantiles_ms
from services.gateway.session.ports import AnswerEnded, FalseInterruption, Transcript, TurnMeasured

SENT = {
    Milestone.USER_SPEECH_END: 0.0,
    Milestone.ENDPOINT: 0.2,
    Milestone.BRAIN_FIRST_TOKEN: 0.25,
    Milestone.PLAYOUT_FIRST: 0.4,
}
HEARD = {**SENT, Milestone.CLIENT_FIRST_AUDIBLE: 0.5}


def test_a_turn_is_one_row_however_often_it_is_told() -> None:
    board = LatencyBoard()
    board.tell("a", "webrtc", TurnMeasured(1, SENT), 100.0)
    board.tell("a", "webrtc", TurnMeasured(1, HEARD), 100.1)
    board.tell("a", "webrtc", FalseInterruption(True), 101.0)
    board.tell("a", "webrtc", AnswerEnded(1, 1, FinishReason.FAILED, 0, "words", Broken("It broke.")), 102.0)
    (turn,) = board.turns()
    assert turn["stages_ms"] == {"endpoint": 200.0, "brain": 50.0, "playout": 150.0, "client": 100.0}
    assert turn["total_ms"] == pytest.approx(sum(turn["stages_ms"].values()))
    assert (turn["time"], turn["ended"], turn["error"], turn["held"]) == (100.0, "FAILED", "BROKEN", True)


def test_no_word_that_was_said_is_kept() -> None:
    board = LatencyBoard()
    board.tell("a", "grpc", TurnMeasured(1, SENT), 1.0)
    board.tell("a", "grpc", Transcript(1, True, "a secret", True), 1.0)
    board.tell("a", "grpc", AnswerEnded(1, 1, FinishReason.CANCELLED, 9, "a secret"), 1.0)
    assert "secret" not in str(board.turns()) + str(board.summary())


def test_the_oldest_turns_make_room_and_sessions_are_told_apart() -> None:
    board = LatencyBoard(kept_turns=3)
    for turn in range(5):
        board.tell("ab"[turn % 2], "livekit", TurnMeasured(turn, SENT), float(turn))
    assert [turn["turn"] for turn in board.turns()] == [2, 3, 4]
    assert [turn["turn"] for turn in board.turns("a")] == [2, 4]


def test_the_version_changes_with_what_is_shown_and_with_nothing_else() -> None:
    board = LatencyBoard()
    board.tell("a", "grpc", Transcript(1, True, "hello", True), 1.0)
    assert board.version == 0
    board.tell("a", "grpc", TurnMeasured(1, SENT), 1.0)
    assert board.version == 1


def test_sums_are_between_their_milestones() -> None:
    board = LatencyBoard()
    board.tell("a", "grpc", TurnMeasured(1, HEARD), 1.0)
    board.tell("a", "grpc", TurnMeasured(2, SENT), 2.0)
    sums = board.summary()["sums"]
    assert sums["first_packet"]["p50"] == pytest.approx(200.0)
    assert sums["first_audio"]["n"] == 2
    assert (sums["heard"]["p50"], sums["heard"]["n"]) == (500.0, 1)


def test_quantiles_are_values_that_were_measured() -> None:
    values = [one / 1000 for one in range(1, 101)]
    assert quantiles_ms(values) == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "n": 100}
    assert quantiles_ms([0.007])["p99"] == 7.0
