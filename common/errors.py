"""The faults of the mesh, as exceptions that core code raises.

Each class stands for rows of `ErrorReason` in `protos/voicemesh/stream/v1/stream.proto` and names the gRPC status that
it becomes. Nothing here knows gRPC, protobuf or a model: `common.status` does the translation, in one place.
"""

from __future__ import annotations


class MeshError(Exception):
    """A fault with an answer for the caller: what went wrong, why, and whether trying again can help.

    `reason` is a value name of `ErrorReason` without its prefix, `metadata` small facts that a program may read. The
    message is one sentence for a person and never holds text or audio of a session.
    """

    status = "INTERNAL"
    default_reason = "BROKEN"

    def __init__(self, message: str, *, reason: str | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = metadata


class InvalidRequest(MeshError):
    """The message itself is wrong; sending it again cannot help."""

    status = "INVALID_ARGUMENT"
    default_reason = "INVALID"


class UnknownName(MeshError):
    """A voice, language, model or session of that name does not exist here."""

    status = "NOT_FOUND"
    default_reason = "UNKNOWN_NAME"


class OutOfOrder(MeshError):
    """The message is well formed but may not come now: text after `flush`, frames before `start`."""

    status = "FAILED_PRECONDITION"
    default_reason = "OUT_OF_ORDER"


class SequenceGap(MeshError):
    """`seq` or a frame index jumped: something was lost on the way, and the utterance must be replayed."""

    status = "DATA_LOSS"
    default_reason = "SEQUENCE_GAP"


class Overloaded(MeshError):
    """No slot, no room in a queue, a reader too slow. Another replica may have room; this one after `retry_after_s`."""

    status = "RESOURCE_EXHAUSTED"
    default_reason = "NO_SLOT"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, reason: str | None = None, **metadata: str) -> None:
        super().__init__(message, reason=reason, **metadata)
        self.retry_after_s = retry_after_s


class NotReady(MeshError):
    """Loading, draining, or something below is down; back off and try again."""

    status = "UNAVAILABLE"
    default_reason = "NOT_READY"


class OutOfTime(MeshError):
    """A deadline or an idle limit passed."""

    status = "DEADLINE_EXCEEDED"
    default_reason = "OUT_OF_TIME"


class AccessDenied(MeshError):
    """The caller did not show who it is, or may not do this."""

    status = "UNAUTHENTICATED"
    default_reason = "ACCESS_DENIED"


class Broken(MeshError):
    """An invariant does not hold or a device failed. Somebody must look."""
