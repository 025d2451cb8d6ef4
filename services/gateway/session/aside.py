"""What a person says over an answer: "mhm", or an interruption? Judged by its words, where a brain hears.

A brain stream of its own listens, opened when they begin and finished when they pause; its transcript is judged, its
answer nobody wants. When nothing comes of it (all brains are full, one takes too long) nothing is told, and the turn
machine goes by length. Refuses to decide anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from common.errors import MeshError
from common.stream import FinishReason
from services.gateway.session.brain_client import BrainAnswer, Listener
from services.gateway.turns.backchannel import OverlapModel
from services.gateway.turns.states import Overlap

Open = Callable[[Listener], BrainAnswer]


class Aside:
    """One at a time: `begins` ends the one before. `tell` is told what it was, once."""

    def __init__(self, open_brain: Open, model: OverlapModel, tell: Callable[[int, Overlap], None]) -> None:
        self._open_brain = open_brain
        self._model = model
        self._tell = tell
        self._listening: _Listening | None = None
        self._sound = bytearray()
        self._epoch = 0

    def begins(self, epoch: int, pcm: bytes) -> None:
        """Somebody speaks over that epoch; this is what was heard of it so far."""
        self.over()
        self._epoch, self._sound = epoch, bytearray(pcm)
        self._listen()

    def hear(self, pcm: bytes) -> None:
        """More of it."""
        if self._listening is None:
            return
        self._sound += pcm
        if not self._listening.is_asked:
            self._listening.brain.hear(pcm)

    def paused(self, epoch: int) -> None:
        """They have paused: what was it? Asked again when they went on after all."""
        if self._listening is None or epoch != self._epoch:
            return
        if self._listening.is_asked:
            self._listen()
        self._listening.is_asked = True
        self._listening.brain.finish()

    def over(self) -> None:
        """It is decided, or of no interest any more."""
        if self._listening is not None:
            self._listening.brain.cancel()
        self._listening = None

    def _listen(self) -> None:
        if self._listening is not None:
            self._listening.brain.cancel()
        self._listening = _Listening(self)
        self._listening.brain = self._open_brain(self._listening)
        self._listening.brain.hear(bytes(self._sound))

    def heard(self, listening: _Listening, text: str, final: bool) -> None:
        """What the brain understands."""
        if listening is not self._listening:
            return
        verdict = self._model.judge(text, final)
        if verdict is not None:
            self.over()
            self._tell(self._epoch, verdict)


class _Listening:
    """To one brain stream; of what it tells only the transcript is of interest."""

    def __init__(self, aside: Aside) -> None:
        self._aside = aside
        self.is_asked = False
        self.brain: BrainAnswer

    def brain_transcript(self, text: str, final: bool) -> None:
        self._aside.heard(self, text, final)

    def brain_started(self, tokenizer_fingerprint: str) -> None: ...
    def brain_text(self, text: str, ids: Sequence[int]) -> None: ...
    def brain_tool_call(self, call: Any) -> None: ...
    def brain_ended(self, reason: FinishReason, error: MeshError | None) -> None: ...
