"""`voicemesh codes`: text in, codec frames out, straight from tts_lm: a JSON line per frame, then one `ended`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from cli.addresses import add_address_flags, target
from cli.errors import CommandError
from cli.reading import text_deltas
from cli.utterance import add_utterance_flags, check, clone_from_recording, ended_facts, generate_start, text_source

if TYPE_CHECKING:
    from voicemesh.tts_lm.v1 import tts_lm_pb2


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("codes", help="text → codec frames, straight from tts_lm, as JSON lines")
    add_utterance_flags(parser)
    add_address_flags(parser)
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is JSON lines anyway")
    parser.set_defaults(run=run_codes)


def run_codes(args: argparse.Namespace) -> int:
    check(args)
    return asyncio.run(_codes(args, text_source(args)))


async def _codes(args: argparse.Namespace, source: str) -> int:
    from voicemesh.tts_lm.v1 import tts_lm_pb2_grpc

    from cli.clients import connected, exchange, stub

    start = generate_start(args, await clone_from_recording(args))
    printer = _Printer()
    async with connected(target(args, "tts_lm")) as channel:
        await exchange(
            stub(tts_lm_pb2_grpc.TtsLmServiceStub, channel).Generate(), _requests(start, source), printer.receive
        )
    if printer.ended is None:
        raise CommandError("tts_lm closed the stream before the utterance had ended")
    return 1 if printer.ended["reason"] in ("FAILED", "CANCELLED") else 0


async def _requests(start: tts_lm_pb2.GenerateStart, source: str) -> AsyncIterator[tts_lm_pb2.GenerateRequest]:
    from voicemesh.stream.v1 import stream_pb2
    from voicemesh.tts_lm.v1 import tts_lm_pb2

    yield tts_lm_pb2.GenerateRequest(start=start)
    async for delta in text_deltas(source):
        yield tts_lm_pb2.GenerateRequest(text=tts_lm_pb2.TextDelta(text=delta))
    yield tts_lm_pb2.GenerateRequest(flush=stream_pb2.Flush())


class _Printer:
    """Responses as lines, each flushed: whoever reads them decodes while we generate."""

    def __init__(self) -> None:
        self.ended: dict[str, Any] | None = None
        self._seed = 0

    def receive(self, response: tts_lm_pb2.GenerateResponse) -> bool:
        """Print one response; True once the utterance has ended."""
        kind = response.WhichOneof("payload")
        if kind == "started":
            self._seed = response.started.seed
        elif kind == "frames":
            self._print_frames(response.frames)
        elif kind == "ended":
            self.ended = ended_facts(response.ended) | {"seed": self._seed}
            print(json.dumps({"ended": self.ended}, ensure_ascii=False), flush=True)
        return self.ended is not None

    def _print_frames(self, frames: tts_lm_pb2.Frames) -> None:
        width = len(frames.codes) // frames.frame_count
        for i in range(frames.frame_count):
            codes = list(frames.codes[i * width : (i + 1) * width])
            line = {"frame": frames.first_frame_index + i, "codes": codes, "text_tokens": frames.text_token_count}
            print(json.dumps(line), flush=True)
