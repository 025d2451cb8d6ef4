"""`ConversationService`: the stream, and what can be asked of sessions from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from common.duplex import Limits
from common.errors import InvalidRequest
from common.observer import Observer
from common.stage import duration, timestamp
from services.gateway.session.dialogue import Dialogue
from services.gateway.session.grpc_edge import Converse
from services.gateway.session.registry import Registry


class ConversationServicer(gateway_pb2_grpc.ConversationServiceServicer):
    """`registry` is asked for with each call: it exists once the gateway has started."""

    def __init__(self, registry: Callable[[], Registry], limits: Limits, observer: Observer) -> None:
        self._registry = registry
        self._limits = limits
        self._observer = observer

    async def Converse(self, requests: AsyncIterator[Any], context: Any) -> None:
        await Converse(self._registry(), self._limits, self._observer, context).serve(requests)

    async def ListSessions(
        self, request: gateway_pb2.ListSessionsRequest, context: Any
    ) -> gateway_pb2.ListSessionsResponse:
        return gateway_pb2.ListSessionsResponse(sessions=map(_info, self._registry().all))

    async def GetSession(self, request: gateway_pb2.GetSessionRequest, context: Any) -> gateway_pb2.GetSessionResponse:
        return gateway_pb2.GetSessionResponse(session=_info(self._registry().find(_named(request.session_id))))

    async def GetTimeline(
        self, request: gateway_pb2.GetTimelineRequest, context: Any
    ) -> gateway_pb2.GetTimelineResponse:
        timeline = self._registry().timeline(_named(request.session_id), request.turn)
        since_s = timeline.since_speech_end_s
        return gateway_pb2.GetTimelineResponse(
            milestones=[
                gateway_pb2.Milestone(
                    name=milestone.value, time=timestamp(at_s), since_user_speech_end=duration(since_s[milestone])
                )
                for milestone, at_s in timeline.times_s.items()
            ]
        )

    async def Say(self, request: gateway_pb2.SayRequest, context: Any) -> gateway_pb2.SayResponse:
        session = self._registry().find(_named(request.session_id))
        return gateway_pb2.SayResponse(epoch=session.say(request.text, request.interruptible))

    async def Interrupt(self, request: gateway_pb2.InterruptRequest, context: Any) -> gateway_pb2.InterruptResponse:
        samples, text = self._registry().find(_named(request.session_id)).interrupt()
        return gateway_pb2.InterruptResponse(heard_sample_offset=samples, heard_text=text)


def _named(session_id: str) -> str:
    if not session_id:
        raise InvalidRequest("session_id is required; ListSessions has those there are.", field="session_id")
    return session_id


def _info(dialogue: Dialogue) -> gateway_pb2.SessionInfo:
    return gateway_pb2.SessionInfo(
        session_id=dialogue.session_id,
        state=dialogue.state.value,
        epoch=dialogue.epoch,
        start_time=timestamp(dialogue.begun_s),
        transport=dialogue.kind,
    )
