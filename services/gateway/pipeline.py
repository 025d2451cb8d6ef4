"""Text to sound: the utterances of one caller, one after another, each through streams of its own.

A `SpeechLine` refuses to know the caller's epochs (its own count utterances), how a stage is reached, and what happens
when one is lost: `talker.py` and `decoder.py` know that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voicemesh.gateway.v1 import gateway_pb2

from common.telemetry import Milestone, TraceParent
from common.voice_store import VoiceStore
from services.gateway.clients import Stages
from services.gateway.utterance import SpeechUtterance, Terms
from services.gateway.voices import written_out


class SpeechLine:
    """One caller's way through the stages. What it submits runs while `run` runs."""

    def __init__(self, stages: Stages, terms: Terms, voices: VoiceStore) -> None:
        self._stages = stages
        self._voices = voices
        self._terms = terms
        self._epoch = -1
        self._session_id = ""
        # The edge admits few utterances at a time and opens one after another.
        self._submitted: asyncio.Queue[SpeechUtterance | None] = asyncio.Queue()

    def submit(
        self,
        request: gateway_pb2.SynthesizeStart,
        trace: TraceParent = ("", ""),
        session_id: str = "",
        milestone: Callable[[Milestone], None] = lambda milestone: None,
    ) -> SpeechUtterance:
        """Begin an utterance. Its text and sound follow. `InvalidRequest` for what it cannot be."""
        self._epoch += 1
        self._session_id = session_id
        utterance = SpeechUtterance(
            self._stages,
            self._terms,
            written_out(request, self._voices),
            session_id=session_id,
            epoch=self._epoch,
            trace=trace,
            milestone=milestone,
        )
        self._submitted.put_nowait(utterance)
        return utterance

    def reset(self) -> None:
        """Let the session be anybody's."""
        self._stages.forget(self._session_id)

    def finish(self) -> None:
        """Nothing more will be submitted: `run` returns when all of it is over."""
        self._submitted.put_nowait(None)

    async def run(self) -> None:
        """Carry what was submitted, until `finish` or cancelled. What happens to one utterance is told in its end."""
        async with asyncio.TaskGroup() as group:
            while (utterance := await self._submitted.get()) is not None:
                group.create_task(utterance.run())
