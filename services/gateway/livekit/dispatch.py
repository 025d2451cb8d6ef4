"""A worker of LiveKit's agent dispatch: registers, says whether it takes a room, and is told the rooms it got.

LiveKit's own protocol (`livekit.protocol.agent`, protobuf over a WebSocket at `/agent`), of which this speaks what one
process with a cap needs. Knows no room: `take` is called with each one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from common.status import cause_of

logger = logging.getLogger(__name__)
STATUS_EVERY_S = 2.5
PING_EVERY_S = 10.0
REGISTER_TIMEOUT_S = 10.0
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 15.0


class Crew(Protocol):
    """Who does the jobs."""

    @property
    def job_count(self) -> int: ...
    @property
    def load(self) -> float:
        """From 0 to 1; at 1 no room is taken."""

    async def work(self, url: str, token: str, job_id: str) -> None:
        """One room, to its end."""

    def end(self, job_id: str) -> None:
        """The server wants the job ended."""


class Worker:
    """`run` until cancelled. `agent` is `livekit.protocol.agent`, `token` makes one with the grant `agent`."""

    def __init__(
        self, agent: Any, url: str, token: Callable[[], str], crew: Crew, *, agent_name: str, identity: str
    ) -> None:
        self._agent = agent
        self._url = url
        self._token = token
        self._crew = crew
        self._agent_name = agent_name
        self._identity = identity
        self.is_draining = False
        self.worker_id = ""
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def run(self) -> None:
        """Registered, or trying to be. Jobs outlive a lost connection: rooms are connections of their own."""
        backoff_s = FIRST_BACKOFF_S
        async with asyncio.TaskGroup() as jobs, aiohttp.ClientSession() as session:
            while True:
                try:
                    await self._registered(session, jobs)
                    backoff_s = FIRST_BACKOFF_S
                except* (aiohttp.ClientError, TimeoutError, OSError) as errors:
                    why = type(cause_of(errors)).__name__
                    logger.warning("no dispatch", extra={"why": why, "again_in_s": backoff_s})
                await asyncio.sleep(backoff_s)
                backoff_s = min(LAST_BACKOFF_S, backoff_s * 2)

    async def _registered(self, session: aiohttp.ClientSession, jobs: asyncio.TaskGroup) -> None:
        headers = {"Authorization": f"Bearer {self._token()}"}
        async with session.ws_connect(_endpoint(self._url), headers=headers, autoping=True) as socket:
            self._socket = socket
            await self._send(register=self._registration())
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                await self._expect_registration(socket)
            async with asyncio.TaskGroup() as beside:
                tasks = [beside.create_task(work()) for work in (self._tell_status, self._ping)]
                await self._listen(socket, jobs)
                for task in tasks:
                    task.cancel()

    def _registration(self) -> Any:
        return self._agent.RegisterWorkerRequest(
            type=self._agent.JobType.JT_ROOM,
            agent_name=self._agent_name,
            version="voicemesh",
            ping_interval=round(PING_EVERY_S),
        )

    async def _expect_registration(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        message = await self._next(socket)
        if message is None or message.WhichOneof("message") != "register":
            raise aiohttp.ClientError("the server did not register this worker")
        self.worker_id = message.register.worker_id
        logger.info("registered for dispatch", extra={"worker": self.worker_id, "agent_name": self._agent_name})

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse, jobs: asyncio.TaskGroup) -> None:
        while (message := await self._next(socket)) is not None:
            kind = message.WhichOneof("message")
            if kind == "availability":
                await self._answer(message.availability.job.id)
            elif kind == "assignment":
                jobs.create_task(self._work(message.assignment))
            elif kind == "termination":
                self._crew.end(message.termination.job_id)

    async def _answer(self, job_id: str) -> None:
        available = not self.is_draining and self._crew.load < 1
        response = self._agent.AvailabilityResponse(
            job_id=job_id,
            available=available,
            participant_identity=f"{self._identity}-{job_id}",
            participant_name=self._identity,
        )
        await self._send(availability=response)

    async def _work(self, assignment: Any) -> None:
        job_id, status = assignment.job.id, self._agent.JobStatus
        await self._tell_job(job_id, status.JS_RUNNING)
        try:
            await self._crew.work(assignment.url or self._url, assignment.token, job_id)
        except Exception as error:  # whatever a room did, the other rooms go on
            logger.exception("a room failed", extra={"job": job_id})
            await self._tell_job(job_id, status.JS_FAILED, type(error).__name__)
        else:
            await self._tell_job(job_id, status.JS_SUCCESS)

    async def _tell_job(self, job_id: str, status: int, why: str = "") -> None:
        update = self._agent.UpdateJobStatus(job_id=job_id, status=status, error=why)
        await self._send(update_job=update)

    async def _tell_status(self) -> None:
        kinds = self._agent.WorkerStatus
        while True:
            is_full = self.is_draining or self._crew.load >= 1
            update = self._agent.UpdateWorkerStatus(
                status=kinds.WS_FULL if is_full else kinds.WS_AVAILABLE,
                load=self._crew.load,
                job_count=self._crew.job_count,
                draining=self.is_draining,
            )
            await self._send(update_worker=update)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            await self._send(ping=self._agent.WorkerPing(timestamp=time.time_ns() // 1_000_000))

    async def _send(self, **message: Any) -> None:
        """On the connection that there is now; who reads from it learns when it is lost."""
        with suppress(aiohttp.ClientError, OSError):
            if self._socket is not None and not self._socket.closed:
                await self._socket.send_bytes(self._agent.WorkerMessage(**message).SerializeToString())

    async def _next(self, socket: aiohttp.ClientWebSocketResponse) -> Any:
        """The server's next message; None when it has hung up."""
        message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            return None
        return self._agent.ServerMessage.FromString(message.data)


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/agent", "", ""))
