"""`voicemesh chat`: a conversation in the terminal, through the gateway: type, hear and read, interrupt with Enter."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cli.addresses import add_address_flags, target
from cli.chat import Chat, JsonScreen, Screen, typed_lines
from cli.errors import CommandError
from cli.wav import WavWriter

if TYPE_CHECKING:
    from voicemesh.gateway.v1 import gateway_pb2

SAMPLE_RATE_HZ = 24000
PROMPT = "> "
Sink = Callable[[bytes], object]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "chat",
        help="a conversation in the terminal",
        description="Type a line to ask, Enter alone to silence the answer, Ctrl-D to leave.",
    )
    parser.add_argument("text", metavar="TEXT", nargs="?", help="ask this alone and leave; none: what is typed")
    parser.add_argument("--instructions", default="", metavar="TEXT", help="who the brain shall be")
    parser.add_argument("--voice", default="", help="a name from `voicemesh voices` (default: the model's first)")
    parser.add_argument("--language", default="auto", help="a language of the model, or auto (default)")
    parser.add_argument("--out", type=Path, metavar="FILE.wav", help="write what was heard, too")
    add_address_flags(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line: when an answer sounds and ends")
    parser.set_defaults(run=run_chat)


def run_chat(args: argparse.Namespace) -> int:
    """1 when an answer failed."""
    return asyncio.run(_chat(args))


async def _chat(args: argparse.Namespace) -> int:
    from voicemesh.gateway.v1 import gateway_pb2_grpc

    from cli.clients import connected, exchange, stub

    is_person = args.text is None and sys.stdin.isatty()
    with ExitStack() as outputs:
        async with connected(target(args, "gateway")) as channel:
            sinks = _sinks(args, outputs)
            screen = _screen(args, is_person, is_quiet=not any(is_loud for _, is_loud in sinks))
            chat = Chat(screen, lambda pcm: _write(sinks, pcm), waits=not is_person)
            lines = _once(args.text) if args.text is not None else typed_lines(sys.stdin.fileno())
            call = stub(gateway_pb2_grpc.ConversationServiceStub, channel).Converse()
            reading = asyncio.ensure_future(chat.read(lines))
            try:
                await exchange(call, chat.requests(_start(args), call.done_writing), chat.receive)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    if is_person:
        print()
    return 1 if chat.failed_count else 0


def _start(args: argparse.Namespace) -> gateway_pb2.ConverseStart:
    from voicemesh.gateway.v1 import gateway_pb2

    start = gateway_pb2.ConverseStart(instructions=args.instructions)
    start.speech.language = args.language
    if args.voice:
        start.speech.voice.name = args.voice
    return start


def _screen(args: argparse.Namespace, is_person: bool, is_quiet: bool) -> Screen:
    if args.json:
        return JsonScreen(sys.stdout, "", is_quiet)
    return Screen(sys.stdout, PROMPT if is_person else "", is_quiet)


def _sinks(args: argparse.Namespace, outputs: ExitStack) -> list[tuple[Sink, bool]]:
    """Where sound goes, and whether it is heard there. Without a sound device the conversation goes on in text."""
    from cli.sound import loudspeaker

    sinks: list[tuple[Sink, bool]] = []
    if args.out is not None:
        try:
            sinks.append((outputs.enter_context(WavWriter(args.out, SAMPLE_RATE_HZ, "s16")).write, False))
        except OSError as error:
            raise CommandError(f"{args.out} cannot be written: {error.strerror}") from error
    try:
        player = outputs.enter_context(loudspeaker(SAMPLE_RATE_HZ))
        sinks.append((player.write, True))
    except CommandError:
        if args.out is None:
            print("voicemesh: there is no sound device here: you read what you would hear", file=sys.stderr)
    return sinks


def _write(sinks: list[tuple[Sink, bool]], pcm: bytes) -> None:
    for sink, _ in sinks:
        sink(pcm)


async def _once(text: str) -> AsyncIterator[str]:
    yield text
