"""LiveKit: the same conversations, as a participant of a room. `docs/livekit.md` is the operator's view.

`rooms.py` alone imports the SDK; everything else gets it as an argument, so that tests can stand in for it.
"""
