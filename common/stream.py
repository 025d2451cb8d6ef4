"""The rules of a stream: order, gaps, repeats, epochs. Pure: values in, values out."""

from __future__ import annotations

from enum import IntEnum


class FinishReason(IntEnum):
    """Why an utterance or an answer ended; the numbers are those of `voicemesh.stream.v1.FinishReason`."""

    UNSPECIFIED = 0
    COMPLETED = 1
    CANCELLED = 2
    LENGTH = 3
    RUNAWAY = 4
    TEXT_TIMEOUT = 5
    FAILED = 6
