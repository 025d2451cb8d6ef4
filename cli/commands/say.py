"""`voicemesh say`: text in, speech out, through the gateway."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.addresses import add_address_flags, target
from cli.errors import CommandError
from cli.listening import Listener
from cli.live import LiveListener
from cli.reading import text_deltas
from cli.utterance import add_utterance_flags, check, clone_from_recording, generate_start, text_source
from cli.wav import SAMPLE_BYTES, WavWriter

if TYPE_CHECKING:
    from voicemesh.gateway.v1 import gateway_pb2

SAMPLE_RATE_HZ = 24000
"""What is asked of the gateway, which resamples where a model speaks at another rate."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("say", help="text → speech, through the gateway")
    add_utterance_flags(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.wav", help="without it, speech goes to the loudspeaker")
    add_address_flags(parser)
    parser.add_argument("--json", action="store_true", help="say what was said as one JSON object")
    parser.set_defaults(run=run_say)


def run_say(args: argparse.Namespace) -> int:
    check(args)
    return asyncio.run(_say(args, text_source(args)))


async def _say(args: argparse.Namespace, source: str) -> int:
    from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

    from cli.clients import connected, exchange, stub, unary

    with ExitStack() as outputs:
        heard = _listener(_sink(args, outputs))
        speech = generate_start(args, await clone_from_recording(args))
        async with connected(target(args, "gateway")) as channel:
            gateway = stub(gateway_pb2_grpc.SpeechServiceStub, channel)
            voices = (await unary(gateway.ListVoices(gateway_pb2.ListVoicesRequest()))).voices
            start = gateway_pb2.SynthesizeStart(speech=speech, format=_format())
            await exchange(gateway.Synthesize(), _requests(start, source, heard), heard.receive)
    if heard.ended is None:
        raise CommandError("the gateway closed the stream before the utterance had ended")
    voice = args.voice or (None if args.ref_audio or not voices else voices[0].name)
    _report(args, heard, heard.ended, voice)
    return 1 if heard.ended["reason"] in ("FAILED", "CANCELLED") else 0


def _listener(sink: Callable[[bytes], object]) -> Listener:
    """With a live line for a person who watches."""
    if sys.stderr.isatty():
        return LiveListener(sink, SAMPLE_RATE_HZ, SAMPLE_BYTES["s16"], sys.stderr)
    return Listener(sink, SAMPLE_RATE_HZ, SAMPLE_BYTES["s16"])


def _sink(args: argparse.Namespace, outputs: ExitStack) -> Callable[[bytes], object]:
    """Opened before anything is asked for: without a place for the sound there is no use in making it."""
    if args.out is None:
        from cli.sound import loudspeaker

        return outputs.enter_context(loudspeaker(SAMPLE_RATE_HZ)).write
    try:
        return outputs.enter_context(WavWriter(args.out, SAMPLE_RATE_HZ, "s16")).write
    except OSError as error:
        raise CommandError(f"{args.out} cannot be written: {error.strerror}") from error


def _format() -> Any:
    from voicemesh.stream.v1 import stream_pb2

    encoding = stream_pb2.AUDIO_ENCODING_PCM_S16LE
    return stream_pb2.AudioFormat(encoding=encoding, sample_rate_hz=SAMPLE_RATE_HZ, channel_count=1)


async def _requests(
    start: gateway_pb2.SynthesizeStart, source: str, heard: Listener
) -> AsyncIterator[gateway_pb2.SynthesizeRequest]:
    from voicemesh.gateway.v1 import gateway_pb2
    from voicemesh.stream.v1 import stream_pb2

    yield gateway_pb2.SynthesizeRequest(start=start)
    async for delta in text_deltas(source):
        heard.sending()
        yield gateway_pb2.SynthesizeRequest(text=delta)
    yield gateway_pb2.SynthesizeRequest(flush=stream_pb2.Flush())


def _report(args: argparse.Namespace, heard: Listener, ended: dict[str, Any], voice: str | None) -> None:
    facts = {"seed": heard.seed, "voice": voice, "frames": ended["frames"], "audio_s": round(heard.audio_s, 3)}
    facts |= {"first_packet_ms": None, "rtf": None} | heard.times() | {"finish_reason": ended["reason"]}
    if "error" in ended:
        facts["error"] = ended["error"]
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    if "error" in ended:
        raise CommandError(ended["error"])
    where = f": {args.out}" if args.out else ""
    cut = "" if ended["reason"] == "COMPLETED" else f", cut short ({ended['reason']})"
    print(f"{facts['audio_s']:g} s of speech, seed {heard.seed}{cut}{where}")
