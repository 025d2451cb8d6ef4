"""Faults on the wire: `MeshError` ↔ `google.rpc.Status` with `ErrorInfo` and `RetryInfo`, in both directions.

The one place that does it, for the statuses that end a stream, for the `error` inside an `ended`, and for clients that
read either. It knows protobuf but refuses to know gRPC: whatever looks like a failed call will do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from common.errors import (
    AccessDenied,
    Broken,
    InvalidRequest,
    MeshError,
    NotReady,
    OutOfOrder,
    OutOfTime,
    Overloaded,
    SequenceGap,
    UnknownName,
)

DOMAIN = "voicemesh"
DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata under which gRPC carries a `google.rpc.Status`."""

# A status travels in trailing metadata, twice and escaped, and callers take 8 KB of that: a sentence that quotes its
# caller must not grow with what the caller sent.
_MESSAGE_CHARACTERS = 300
_FACT_CHARACTERS = 100

_KINDS: tuple[type[MeshError], ...] = (
    InvalidRequest,
    UnknownName,
    OutOfOrder,
    SequenceGap,
    Overloaded,
    NotReady,
    OutOfTime,
    AccessDenied,
    Broken,
)
_KIND_BY_CODE: dict[int, type[MeshError]] = {code_pb2.Code.Value(kind.status): kind for kind in _KINDS}
# Codes that no service here chooses, but that gRPC itself or a proxy between us may.
_KIND_BY_CODE |= {
    code_pb2.PERMISSION_DENIED: AccessDenied,
    code_pb2.UNIMPLEMENTED: InvalidRequest,
    code_pb2.OUT_OF_RANGE: InvalidRequest,
    code_pb2.ALREADY_EXISTS: InvalidRequest,
    code_pb2.ABORTED: NotReady,
}
# What a status without `ErrorInfo` means: it did not come from a service of the mesh, but from the way there. A proxy
# that loses what is behind it resets the stream, and that reads as INTERNAL: nothing broke but the way.
_FOREIGN_KIND: dict[int, type[MeshError]] = {code_pb2.INTERNAL: NotReady}
_FOREIGN_REASON = {
    code_pb2.INTERNAL: "DEPENDENCY_DOWN",
    code_pb2.UNAVAILABLE: "DEPENDENCY_DOWN",
    code_pb2.ABORTED: "DEPENDENCY_DOWN",
    code_pb2.UNIMPLEMENTED: "UNSUPPORTED",
    code_pb2.RESOURCE_EXHAUSTED: "TOO_LARGE",
}


class FailedCall(Protocol):
    """What `grpc.RpcError` and `grpc.aio.AioRpcError` offer."""

    def code(self) -> Any: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def cause_of(error: BaseException) -> BaseException:
    """The error that counts: of an exception group the first bug in it, else its first `MeshError`, else
    cancellation."""
    leaves = list(_leaves(error))
    bugs = [leaf for leaf in leaves if not isinstance(leaf, MeshError | asyncio.CancelledError)]
    faults = [leaf for leaf in leaves if isinstance(leaf, MeshError)]
    return (bugs or faults or leaves)[0]


def status_of(error: BaseException) -> status_pb2.Status:
    """What a caller is told. A `MeshError` keeps its sentence, reason and metadata; cancellation is CANCELLED; anything
    else is INTERNAL and says nothing of our insides: whoever calls this logs the traceback."""
    error = cause_of(error)
    if isinstance(error, asyncio.CancelledError):
        return status_pb2.Status(code=code_pb2.CANCELLED, message="The call was cancelled.")
    if not isinstance(error, MeshError):
        error = Broken("Internal error; the log of the service has more.")
    status = status_pb2.Status(code=code_pb2.Code.Value(error.status), message=_cut(error.message, _MESSAGE_CHARACTERS))
    facts = {key: _cut(value, _FACT_CHARACTERS) for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts)
    status.details.add().Pack(info)
    if isinstance(error, Overloaded):
        retry = Duration()
        retry.FromNanoseconds(round(error.retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=retry))
    return status


def error_of(status: status_pb2.Status) -> MeshError:
    """The way back, for clients. A code that no fault of ours uses becomes `Broken`."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
    is_ours = info.domain == DOMAIN
    kind = (None if is_ours else _FOREIGN_KIND.get(status.code)) or _KIND_BY_CODE.get(status.code, Broken)
    reason = info.reason if is_ours else _FOREIGN_REASON.get(status.code)
    metadata = {key: value for key, value in info.metadata.items() if key not in ("message", "reason", "retry_after_s")}
    if kind is Overloaded and retry.HasField("retry_delay"):
        delay_s = retry.retry_delay.ToNanoseconds() / 1e9
        return Overloaded(status.message, retry_after_s=delay_s, reason=reason, **metadata)
    return kind(status.message, reason=reason, **metadata)


def error_of_call(call: FailedCall) -> MeshError:
    """The fault that ended a call: its `google.rpc.Status` where there is one, otherwise code and sentence."""
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return error_of(status_pb2.Status.FromString(value))
    code = call.code()
    return error_of(status_pb2.Status(code=code.value[0], message=call.details() or code.name))


def _cut(text: str, characters: int) -> str:
    """At most that many characters, and none that UTF-8 does not know."""
    text = text if len(text) <= characters else text[: characters - 1] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
