"""What every service with streams can be told about them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.config import ServiceConfig
from common.duplex import Limits


class StreamConfig(ServiceConfig):
    """A service whose methods are bidirectional streams."""

    pending_utterances: Annotated[
        int, Field(ge=0, le=32, description="Utterances of one stream that may wait for the one before them.")
    ] = 8
    backlog_bytes: Annotated[
        int, Field(ge=1024, le=64 * 1024 * 1024, description="What may be said to waiting utterances of one stream.")
    ] = 4 * 1024 * 1024
    idle_s: Annotated[
        float, Field(gt=0, le=86_400, description="A stream on which nothing runs and nothing is said ends after this.")
    ] = 300.0
    silent_utterance_s: Annotated[
        float, Field(gt=0, le=86_400, description="The same while an utterance runs or waits for its text.")
    ] = 900.0
    slow_reader_s: Annotated[
        float, Field(gt=0, le=3600, description="A caller that reads no response for so long loses its stream.")
    ] = 30.0

    @property
    def limits(self) -> Limits:
        """The same for the streams' edge."""
        return Limits(
            pending_utterances=self.pending_utterances,
            backlog_bytes=self.backlog_bytes,
            idle_s=self.idle_s,
            silent_utterance_s=self.silent_utterance_s,
            slow_reader_s=self.slow_reader_s,
        )
