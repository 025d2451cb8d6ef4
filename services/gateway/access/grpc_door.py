"""The door over gRPC: what a call shows in its metadata and its certificate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from services.gateway.access.caller import scope_of_method
from services.gateway.access.door import Door, Shown, secret_of

_NAMES = ("x509_common_name", "x509_subject_alternative_name")


def admission(door: Door) -> Callable[[str, Any], AbstractContextManager[object]]:
    """What the server asks before each call: its method, and grpc's context of it."""

    def admit(method: str, context: Any) -> AbstractContextManager[object]:
        if door.is_open:
            return nullcontext()
        headers = {key.lower(): value for key, value in context.invocation_metadata() if isinstance(value, str)}
        shown = Shown(secret_of(headers), _certificate_name(context), context.peer())
        return door.admit(shown, scope_of_method(method))

    return admit


def _certificate_name(context: Any) -> str:
    facts = context.auth_context()
    for key in _NAMES:
        for value in facts.get(key, ()):
            return str(value, "utf-8", "replace")
    return ""
