"""What comes in on standard input or from a file, as it comes: text deltas, lines."""

from __future__ import annotations

import asyncio
import codecs
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from cli.errors import CommandError

_PIECE_BYTES = 4096
LONGEST_LINE_BYTES = 1 << 20


async def text_deltas(source: str) -> AsyncIterator[str]:
    """`-`: standard input as it arrives, cut between characters; anything else is the text itself."""
    if source != "-":
        yield source
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    async for piece in _pieces(sys.stdin.buffer):
        if text := decoder.decode(piece):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


async def lines(source: str) -> AsyncIterator[bytes]:
    """Lines of a file, or of standard input for `-`, each once it is whole; CommandError when it cannot be read."""
    if source == "-":
        async for line in _split(_pieces(sys.stdin.buffer)):
            yield line
        return
    for line in _file_lines(Path(source)):
        yield line


def _file_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error


async def _split(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LONGEST_LINE_BYTES:
            raise CommandError(f"a line longer than {LONGEST_LINE_BYTES} bytes is none of ours")
    if rest:
        yield rest


async def _pieces(stream: BinaryIO) -> AsyncIterator[bytes]:
    """Bytes as they arrive, without a thread that would outlive an interrupt."""
    reader = asyncio.StreamReader()
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), stream
        )
    except (ValueError, PermissionError):  # a plain file or /dev/null: never makes us wait
        while piece := stream.read(_PIECE_BYTES):
            yield piece
        return
    try:
        while piece := await reader.read(_PIECE_BYTES):
            yield piece
    finally:
        transport.close()
