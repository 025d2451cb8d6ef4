from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from voicemesh.stream.v1 import stream_pb2

from common import errors
from common.errors import AccessDenied, Broken, InvalidRequest, MeshError, NotReady, Overloaded
from common.status import DETAILS_KEY, error_of, error_of_call, status_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeshError)]
FAULTS = [kind for kind in KINDS if kind is not MeshError]


@dataclass
class FailedCall:
    """What a client holds after a failed call."""

    status_code: grpc.StatusCode
    sentence: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = field(default=())

    def code(self) -> grpc.StatusCode:
        return self.status_code

    def details(self) -> str:
        return self.sentence

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.trailers


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_has_a_status_and_a_reason_of_the_contract(kind: type[MeshError]) -> None:
    assert kind.status in grpc.StatusCode.__members__
    assert f"ERROR_REASON_{kind.default_reason}" in stream_pb2.ErrorReason.DESCRIPTOR.values_by_name


@pytest.mark.parametrize("kind", FAULTS)
@settings(deadline=None)
@given(message=st.text(max_size=50), metadata=st.dictionaries(st.sampled_from(["voice", "limit", "kind"]), st.text()))
def test_a_fault_comes_back_as_it_went(kind: type[MeshError], message: str, metadata: dict[str, str]) -> None:
    back = error_of(status_pb2.Status.FromString(status_of(kind(message, **metadata)).SerializeToString()))
    assert (type(back), back.message, back.reason) == (kind, message, kind.default_reason)
    assert back.metadata == metadata


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=3600))
def test_the_time_to_wait_comes_back_to_the_nanosecond(retry_after_s: float) -> None:
    back = error_of(status_of(Overloaded("Full.", retry_after_s=retry_after_s, reason="SLOW_READER")))
    assert isinstance(back, Overloaded)
    assert back.retry_after_s == pytest.approx(retry_after_s, abs=1e-9)
    assert back.reason == "SLOW_READER"


def test_what_is_not_ours_tells_nothing() -> None:
    status = status_of(OSError("/secret/path"))
    assert status.code == code_pb2.INTERNAL
    assert "secret" not in str(status)


def test_a_fault_that_was_wrapped_in_groups_is_still_that_fault() -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [AccessDenied("Who are you?")])])
    assert status_of(group).code == code_pb2.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, NotReady, "DEPENDENCY_DOWN"),
        (grpc.StatusCode.INTERNAL, NotReady, "DEPENDENCY_DOWN"),
        (grpc.StatusCode.UNIMPLEMENTED, InvalidRequest, "UNSUPPORTED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded, "TOO_LARGE"),
        (grpc.StatusCode.PERMISSION_DENIED, AccessDenied, "ACCESS_DENIED"),
        (grpc.StatusCode.UNKNOWN, Broken, "BROKEN"),
    ],
)
def test_a_status_from_the_way_there_is_told_from_our_own(
    code: grpc.StatusCode, kind: type[MeshError], reason: str
) -> None:
    fault = error_of_call(FailedCall(code, "no route"))
    assert (type(fault), fault.message, fault.reason) == (kind, "no route", reason)


def test_details_in_trailing_metadata_come_before_code_and_sentence() -> None:
    details = status_of(Overloaded("Full.", retry_after_s=2.0)).SerializeToString()
    call = FailedCall(grpc.StatusCode.UNKNOWN, "?", (("x", "y"), (DETAILS_KEY, details)))
    assert isinstance(error_of_call(call), Overloaded)


def test_details_that_cannot_be_read_leave_code_and_sentence() -> None:
    call = FailedCall(grpc.StatusCode.UNAVAILABLE, "down", ((DETAILS_KEY, b"\xff\xff"),))
    assert isinstance(error_of_call(call), NotReady)


def test_reasons_of_another_domain_are_not_taken_for_ours() -> None:
    status = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="proxy")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="DRAINING", domain="envoy"))
    assert error_of(status).reason == "DEPENDENCY_DOWN"
