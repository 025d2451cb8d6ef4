"""What may come next on a stream of `Converse`: order, gaps, sessions, epochs. Pure.

Unlike an utterance's stream the epochs here are handed out by the gateway; a caller only says which one it means.
"""

from __future__ import annotations

from voicemesh.gateway.v1 import gateway_pb2

from common.errors import InvalidRequest, OutOfOrder, SequenceGap
from common.stream import MAX_SESSION_ID_CHARACTERS, Drop

_ABOUT_EPOCHS = ("interrupt", "playback")


class ConverseGuard:
    """One stream's memory of its requests. Raises what ends the stream; other oddities are dropped and counted."""

    def __init__(self) -> None:
        self.drops = {Drop.REPEATED: 0, Drop.STALE: 0}
        self.session_id = ""
        self._last_seq = -1
        self._has_started = False

    def accept(self, request: gateway_pb2.ConverseRequest, wanted_epoch: int | None, newest_epoch: int) -> Drop | None:
        """Judge the next request: why it is to be dropped, or None. `wanted_epoch` is being answered now, if one is."""
        payload = request.WhichOneof("payload")
        if payload is None:
            raise InvalidRequest("A request holds exactly one payload; this one holds none.")
        self._check_marks(request)
        if not self._in_sequence(request):
            return self._dropped(Drop.REPEATED)
        if (payload == "start") is self._has_started:
            sentence = "`start` comes once." if self._has_started else f"`start` comes first, not `{payload}`."
            raise OutOfOrder(sentence)
        self._has_started = True
        if not request.HasField("epoch") or payload == "start":
            return None
        if request.epoch > newest_epoch:
            raise InvalidRequest(f"Epoch {request.epoch} was not given out yet.", field="epoch")
        is_stale = payload in _ABOUT_EPOCHS and request.epoch != wanted_epoch
        return self._dropped(Drop.STALE) if is_stale else None

    def _check_marks(self, request: gateway_pb2.ConverseRequest) -> None:
        for name in ("epoch", "seq"):
            if getattr(request, name) < 0:
                raise InvalidRequest(f"{name} counts from 0.", field=name)
        if len(request.session_id) > MAX_SESSION_ID_CHARACTERS:
            sentence = f"session_id holds at most {MAX_SESSION_ID_CHARACTERS} characters."
            raise InvalidRequest(sentence, field="session_id")
        if self.session_id and request.session_id and request.session_id != self.session_id:
            raise InvalidRequest("A stream belongs to one session; this request names another.", field="session_id")

    def _in_sequence(self, request: gateway_pb2.ConverseRequest) -> bool:
        expected = self._last_seq + 1
        seq = request.seq if request.HasField("seq") else expected
        if seq > expected:
            raise SequenceGap(f"expected seq {expected}, got {seq}", expected=str(expected), got=str(seq))
        self._last_seq = max(self._last_seq, seq)
        return seq == expected

    def _dropped(self, why: Drop) -> Drop:
        self.drops[why] += 1
        return why
