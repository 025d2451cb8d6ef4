"""Traces, measures and logs: the only door to OpenTelemetry, and the only place where one of its names is spelled.

A process makes one `Telemetry` and hands it down; nothing is global, so that tests can have as many as they like. It
refuses to know what a stage does: engines tell an `Observer`, edges open spans with a `SpanName`.
"""

from common.telemetry.conversation import ConversationObserver, Speculation, Verdict
from common.telemetry.log import configure_logging
from common.telemetry.names import Attribute, Milestone, SpanName
from common.telemetry.setup import Telemetry, TelemetrySettings
from common.telemetry.spans import NoTrace, RpcTrace, TraceParent, Turn, Work, inject
from common.telemetry.stage import StageObserver

__all__ = [
    "Attribute",
    "ConversationObserver",
    "Milestone",
    "NoTrace",
    "RpcTrace",
    "SpanName",
    "Speculation",
    "StageObserver",
    "Telemetry",
    "TelemetrySettings",
    "TraceParent",
    "Turn",
    "Verdict",
    "Work",
    "configure_logging",
    "inject",
]
