"""Who may call the gateway: API keys, tokens, limits, origins. `docs/security.md` is the operator's view.

Knows neither gRPC nor aiohttp but in `grpc_door.py` and `http_door.py`, and nothing of what is called.
"""

from services.gateway.access.caller import CONVERSATION, OPERATE, SPEECH, Caller
from services.gateway.access.door import Door, Shown, Visit, keep_visit, spend_text

__all__ = ["CONVERSATION", "OPERATE", "SPEECH", "Caller", "Door", "Shown", "Visit", "keep_visit", "spend_text"]
