"""`voicemesh decode`: the frames that `voicemesh codes` prints in, samples out, straight from the codec."""

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
from cli.errors import CommandError, UsageError
from cli.listening import Listener
from cli.reading import lines
from cli.wav import SAMPLE_BYTES, WavWriter

if TYPE_CHECKING:
    from voicemesh.codec.v1 import codec_pb2


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("decode", help="codec frames → sound, straight from the codec")
    parser.add_argument("file", metavar="FILE", help="frames as `voicemesh codes` prints them; - is standard input")
    parser.add_argument("--out", type=Path, metavar="FILE.wav", help="without it, raw samples go to standard output")
    parser.add_argument("--packet", type=int, default=4, metavar="N", help="frames sent at a time (default 4)")
    parser.add_argument("--format", choices=("s16", "f32"), default="s16", help="of a sample (default s16)")
    add_address_flags(parser)
    parser.add_argument("--json", action="store_true", help="say what was decoded as one JSON object (needs --out)")
    parser.set_defaults(run=run_decode)


def run_decode(args: argparse.Namespace) -> int:
    if args.packet < 1:
        raise UsageError("--packet must be at least 1 frame")
    if args.out is None and args.json:
        raise UsageError("--json needs --out: without it standard output carries the samples")
    if args.out is None and sys.stdout.isatty():
        raise UsageError("samples are not for a terminal: give --out FILE.wav or pipe them on")
    return asyncio.run(_decode(args))


async def _decode(args: argparse.Namespace) -> int:
    from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc

    from cli.clients import connected, exchange, stub, unary

    async with connected(target(args, "codec")) as channel:
        codec = stub(codec_pb2_grpc.CodecServiceStub, channel)
        info = await unary(codec.GetCodec(codec_pb2.GetCodecRequest()))
        with ExitStack() as files:
            sink = _sink(args, info.sample_rate_hz, files)
            heard = Listener(sink, info.sample_rate_hz, SAMPLE_BYTES[args.format])
            await exchange(codec.Decode(), _requests(args, info.codebook_count, heard), heard.receive)
    if heard.ended is None:
        raise CommandError("the codec closed the stream before the utterance had ended")
    if heard.ended["reason"] != "COMPLETED":
        raise CommandError(
            f"the codec ended with {heard.ended['reason']}: {heard.ended.get('error', 'no reason given')}"
        )
    _report(args, heard, heard.ended)
    return 0


def _sink(args: argparse.Namespace, sample_rate_hz: int, files: ExitStack) -> Callable[[bytes], object]:
    if args.out is None:
        return sys.stdout.buffer.write
    try:
        return files.enter_context(WavWriter(args.out, sample_rate_hz, args.format)).write
    except OSError as error:
        raise CommandError(f"{args.out} cannot be written: {error.strerror}") from error


async def _requests(
    args: argparse.Namespace, codebook_count: int, heard: Listener
) -> AsyncIterator[codec_pb2.DecodeRequest]:
    from voicemesh.codec.v1 import codec_pb2
    from voicemesh.stream.v1 import stream_pb2

    encodings = {"s16": stream_pb2.AUDIO_ENCODING_PCM_S16LE, "f32": stream_pb2.AUDIO_ENCODING_PCM_F32LE}
    audio_format = stream_pb2.AudioFormat(encoding=encodings[args.format])
    yield codec_pb2.DecodeRequest(start=codec_pb2.DecodeStart(format=audio_format))
    first = 0
    async for packet in _packets(args.file, codebook_count, args.packet):
        codes = [code for frame in packet for code in frame]
        heard.sending()
        frames = codec_pb2.CodecFrames(first_frame_index=first, frame_count=len(packet), codes=codes)
        yield codec_pb2.DecodeRequest(frames=frames)
        first += len(packet)
    yield codec_pb2.DecodeRequest(flush=stream_pb2.Flush())


async def _packets(source: str, codebook_count: int, size: int) -> AsyncIterator[list[list[int]]]:
    """Frames of the input, `size` at a time; CommandError names the line that holds none, or a failed generation."""
    packet: list[list[int]] = []
    empty, number = True, 0
    async for line in lines(source):
        number += 1
        if not line.strip():
            continue
        empty = False
        codes = _codes_of(line, number, codebook_count)
        if codes is None:
            continue
        packet.append(codes)
        if len(packet) == size:
            yield packet
            packet = []
    if empty:
        raise CommandError("there are no frames to decode: the input is empty")
    if packet:
        yield packet


def _codes_of(line: bytes, number: int, codebook_count: int) -> list[int] | None:
    """The codes of one line, None for the `ended` line."""
    try:
        message = json.loads(line)
        if isinstance(message, dict) and "ended" in message:
            if message["ended"].get("reason") == "FAILED":
                raise CommandError(f"the frames end in a failure: {message['ended'].get('error', 'no reason given')}")
            return None
        codes = [int(code) for code in message["codes"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CommandError(f'line {number} is no frame: expected {{"frame": i, "codes": […]}}') from error
    if len(codes) != codebook_count:
        raise CommandError(f"line {number} has {len(codes)} codes; this codec takes {codebook_count} a frame")
    return codes


def _report(args: argparse.Namespace, heard: Listener, ended: dict[str, Any]) -> None:
    if args.out is None:
        return
    facts = {"frames": ended["frames"], "samples": heard.sample_count, "audio_s": round(heard.audio_s, 3)}
    if args.json:
        print(json.dumps(facts | heard.times() | {"out": str(args.out)}))
    else:
        print(f"{facts['frames']} frames, {facts['audio_s']:g} s of sound: {args.out}")
