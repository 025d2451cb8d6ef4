"""A relay for what goes by TCP (gRPC, HTTP), on loopback: slow, narrow, stalled or cut, while it runs.

async with TcpRelay("127.0.0.1:50052", delay_s=0.05) as relay:
    channel = grpc.aio.insecure_channel(relay.address)
    relay.stall()      # nothing passes, nothing is lost
    relay.resume()
    relay.cut()        # every connection is reset; new ones are refused until `mend`
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType

HOST = "127.0.0.1"
CHUNK_BYTES = 16384


class TcpRelay:
    """See the module. `delay_s` and `bytes_per_s` hold for each direction of each connection and may be changed."""

    def __init__(self, target: str, *, delay_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.delay_s = delay_s
        self.bytes_per_s = bytes_per_s
        self.passed_bytes = 0
        self._open = asyncio.Event()
        self._open.set()
        self._is_cut = False
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> TcpRelay:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return f"{HOST}:{port}"

    @property
    def connections(self) -> int:
        return len(self._writers) // 2

    def stall(self) -> None:
        """From now on nothing passes; what is sent waits."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._is_cut = True
        for writer in tuple(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                self._writers.add(far_writer)
                try:
                    async with asyncio.TaskGroup() as ways:
                        ways.create_task(self._pass(reader, far_writer))
                        ways.create_task(self._pass(far_reader, writer))
                finally:
                    self._writers.discard(far_writer)
                    far_writer.close()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction: read at once, write when it is due."""
        waiting: deque[tuple[float, bytes]] = deque()
        came = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._read(reader, waiting, came))
                both.create_task(self._write(writer, waiting, came))
        except* (ConnectionError, OSError):
            writer.transport.abort()

    async def _read(
        self, reader: asyncio.StreamReader, waiting: deque[tuple[float, bytes]], came: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            data = await reader.read(CHUNK_BYTES)
            waiting.append((loop.time() + self.delay_s, data))
            came.set()

    async def _write(
        self, writer: asyncio.StreamWriter, waiting: deque[tuple[float, bytes]], came: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not waiting:
                came.clear()
                await came.wait()
            at_s, data = waiting.popleft()
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            await self._open.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            self.passed_bytes += len(data)
            if self.bytes_per_s is not None:
                await asyncio.sleep(len(data) / self.bytes_per_s)
