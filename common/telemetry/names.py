"""Every span, event, metric and attribute name of the mesh, and the edges of every histogram. Nothing else spells one.

Names follow OpenTelemetry: lower case, dots for namespaces, seconds, no unit in the name. What OpenTelemetry itself
names (`rpc.*`, `gen_ai.*`) carries its name; the rest stands under `voicemesh.`.
"""

from __future__ import annotations

from enum import StrEnum


class SpanName(StrEnum):
    """One trace per turn: the root and its children."""

    TURN = "turn"
    BRAIN_RESPOND = "brain.respond"
    TTS_LM_GENERATE = "tts_lm.generate"
    CODEC_DECODE = "codec.decode"
    CODEC_ENCODE = "codec.encode"
    GATEWAY_SYNTHESIZE = "gateway.synthesize"
    GATEWAY_PLAYOUT = "gateway.playout"


class Milestone(StrEnum):
    """The moments of a turn, in the order in which they come."""

    USER_SPEECH_END = "user_speech_end"
    ENDPOINT = "endpoint"
    BRAIN_FIRST_TOKEN = "brain_first_token"
    TTS_TEXT_FIRST = "tts_text_first"
    TTS_FIRST_FRAME = "tts_first_frame"
    CODEC_FIRST_PCM = "codec_first_pcm"
    FIRST_OPUS = "first_opus"
    PLAYOUT_FIRST = "playout_first"
    CLIENT_FIRST_AUDIBLE = "client_first_audible"


class Attribute(StrEnum):
    """Keys on spans; those of `METRIC_ATTRIBUTES` alone may stand on metrics."""

    STAGE = "voicemesh.stage"
    MILESTONE = "voicemesh.milestone"
    FINISH_REASON = "voicemesh.finish_reason"
    ERROR_REASON = "voicemesh.error.reason"
    SESSION_ID = "voicemesh.session.id"
    EPOCH = "voicemesh.epoch"
    UTTERANCE = "voicemesh.utterance"
    RPC_SYSTEM = "rpc.system.name"
    RPC_METHOD = "rpc.method"
    RPC_STATUS_CODE = "rpc.response.status_code"
    ERROR_TYPE = "error.type"
    PREFIX_HIT = "voicemesh.prefix.hit"
    VERDICT = "voicemesh.verdict"
    OUTCOME = "voicemesh.outcome"
    HARDWARE_ID = "hw.id"
    TIME_TO_FIRST_AUDIO_MS = "voicemesh.turn.time_to_first_audio_ms"  # what a collector keeps slow turns by


METRIC_ATTRIBUTES = frozenset(
    {
        Attribute.STAGE,
        Attribute.MILESTONE,
        Attribute.FINISH_REASON,
        Attribute.RPC_SYSTEM,
        Attribute.RPC_METHOD,
        Attribute.RPC_STATUS_CODE,
        Attribute.ERROR_TYPE,
        Attribute.VERDICT,
        Attribute.OUTCOME,
        Attribute.HARDWARE_ID,
    }
)

RPC_SERVER_DURATION = "rpc.server.call.duration"
TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"
TURN_MILESTONE = "voicemesh.turn.milestone.time"
TURN_HOP = "voicemesh.turn.hop.duration"
TURN_TIME_TO_FIRST_PACKET = "voicemesh.turn.time_to_first_packet"
TURN_TIME_TO_FIRST_AUDIO = "voicemesh.turn.time_to_first_audio"
STEP_DURATION = "voicemesh.{stage}.step.duration"
STEP_BATCH_SIZE = "voicemesh.{stage}.step.batch_size"
STEP_STARVED = "voicemesh.{stage}.step.starved"
PREFIX_LOOKUPS = "voicemesh.{stage}.prefix.lookups"
SLOT_USAGE = "voicemesh.slot.usage"
SLOT_LIMIT = "voicemesh.slot.limit"
QUEUE_AGE = "voicemesh.queue.age"
PLAYOUT_LEAD = "voicemesh.playout.lead"
PLAYOUT_UNDERRUNS = "voicemesh.playout.underruns"
CANCEL_DURATION = "voicemesh.cancel.duration"
STREAM_STALE = "voicemesh.stream.stale"
STREAM_REPEATS = "voicemesh.stream.repeats"
UTTERANCES = "voicemesh.utterance.ended"
UTTERANCE_TIME_TO_FIRST = "voicemesh.utterance.time_to_first"
UTTERANCE_COMPUTE = "voicemesh.utterance.compute.duration"
UTTERANCE_RTF = "voicemesh.utterance.rtf"

TURN_ENDED = "voicemesh.turn.ended"
TURN_INTERRUPTIONS = "voicemesh.turn.interruptions"
TURN_INTERRUPTION_SILENCE = "voicemesh.turn.interruption.silence"
TURN_SPECULATIONS = "voicemesh.turn.speculations"
SESSION_ACTIVE = "voicemesh.session.active"
SESSION_LIMIT = "voicemesh.session.limit"
PACER_LATENESS = "voicemesh.pacer.lateness"
PACER_SKIPPED = "voicemesh.pacer.skipped"
PLAYOUT_PAUSE = "voicemesh.playout.pause"
LOOP_BLOCKED = "voicemesh.loop.blocked"
GPU_MEMORY_USAGE = "hw.gpu.memory.usage"
GPU_MEMORY_LIMIT = "hw.gpu.memory.limit"
GPU_UTILIZATION = "hw.gpu.utilization"

# The targets are edges, so that the share within a target is exact: for a first packet 15, 18, 22, 25, 30 and 40 ms,
# for audible speech 15, 22, 30, 35 and 50 ms, from a token of the brain to sound 50 and 80 ms, for hops 1.5 and 3 ms,
# for a stop one frame (80 ms), for silence after a voice 150 and 200 ms.
# fmt: off
LATENCY_EDGES_S = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.018, 0.022, 0.025, 0.03, 0.035, 0.04, 0.05,
    0.065, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0,
)
# A step: 4 and 6 ms on a GPU, 59, 118 and 236 ms as the memory floors of two CPU cores beside the reference's 406.
STEP_EDGES_S = (
    0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.03, 0.04, 0.059, 0.08, 0.118,
    0.16, 0.236, 0.3, 0.406, 0.6, 1.0, 2.0,
)
CALL_EDGES_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512)
# Below 1 is faster than real time.
RTF_EDGES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0)
# Steady lead shall be 200 to 400 ms; below 0 playout has overtaken production.
LEAD_EDGES_S = (-1.0, -0.2, 0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
# fmt: on
