"""The rooms of one gateway: one by its name or token, or those that a server dispatches. Imports LiveKit's SDK."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from common.errors import MeshError, NotReady
from common.status import cause_of
from services.gateway.livekit.config import LiveKitConfig
from services.gateway.livekit.dispatch import Worker
from services.gateway.livekit.stay import Stay
from services.gateway.session.ports import Sessions, SessionSettings

logger = logging.getLogger(__name__)
TOKEN_LASTS = datetime.timedelta(hours=1)
REJOIN_S = 5.0


class Rooms:
    """`start` it with the gateway, `close` it before its conversations. `sdk`: what stands for `livekit.rtc`."""

    def __init__(self, config: LiveKitConfig, sessions: Callable[[], Sessions | None], sdk: Any = None) -> None:
        self._config = config
        self._find_sessions = sessions
        self._sdk = sdk
        self._stays: dict[str, Stay] = {}
        self._task: asyncio.Task[None] | None = None
        self._worker: Worker | None = None
        self._is_closing = False
        self._left = asyncio.Event()

    async def start(self) -> None:
        """Nothing without `livekit_url`. NotReady where the SDK is not installed."""
        if self._config.livekit_url is None:
            return
        try:
            from livekit import api, rtc
            from livekit.protocol import agent
        except ImportError:
            sentence = "LiveKit's SDK is not installed: pip install -e '.[livekit]'."
            raise NotReady(sentence, reason="UNSUPPORTED") from None
        self._rtc, self._api, self._agent = self._sdk or rtc, api, agent
        is_fixed = self._config.livekit_room is not None or self._config.livekit_token is not None
        work = self._stay_in_room() if is_fixed else self._take_dispatched(self._config.livekit_url)
        self._task = asyncio.create_task(work)  # ends in `close`, which raises what it raised

    async def close(self) -> None:
        """Leave all rooms."""
        self._is_closing = True
        if self._worker is not None:
            self._worker.is_draining = True
        for stay in self._stays.values():
            stay.leave()
        self._left.set()
        if self._task is None:
            return
        if self._worker is not None:
            while self._stays:
                self._left.clear()
                await self._left.wait()
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    # One room.

    async def _stay_in_room(self) -> None:
        """For as long as the gateway lives, whatever becomes of the room."""
        while not self._is_closing:
            stay = self._stays["room"] = self._stay(self._pass, stays=True)
            try:
                await stay.run()
            except* (self._rtc.ConnectError, MeshError) as failed:
                logger.warning("room lost", extra={"why": type(cause_of(failed)).__name__, "again_in_s": REJOIN_S})
            del self._stays["room"]
            self._left.clear()
            if not self._is_closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._left.wait(), REJOIN_S)

    def _pass(self) -> tuple[str, str]:
        url, token = self._config.livekit_url, self._config.livekit_token
        assert url is not None, "rooms are joined with it"
        return url, token.get_secret_value() if token is not None else self._token(room=self._config.livekit_room or "")

    def _token(self, *, room: str = "", agent: bool = False) -> str:
        secret = self._config.livekit_api_secret
        assert secret is not None, "the configuration was checked"
        grants = self._api.VideoGrants(agent=True) if agent else self._api.VideoGrants(room_join=True, room=room)
        grants.can_update_own_metadata = True  # our state is an attribute
        token = self._api.AccessToken(self._config.livekit_api_key, secret.get_secret_value())
        token = token.with_identity(self._config.livekit_identity).with_kind("agent").with_ttl(TOKEN_LASTS)
        return str(token.with_grants(grants).to_jwt())

    def _stay(self, admission: Callable[[], tuple[str, str]], *, stays: bool) -> Stay:
        return Stay(self._rtc, admission, self._sessions, settings=SessionSettings(), stays=stays)

    def _sessions(self) -> Sessions:
        sessions = self._find_sessions()
        if sessions is None:
            raise NotReady("Conversation is not offered by this gateway.")
        return sessions

    # Dispatched rooms: the crew of a worker.

    async def _take_dispatched(self, url: str) -> None:
        self._worker = Worker(
            self._agent,
            url,
            lambda: self._token(agent=True),
            self,
            agent_name=self._config.livekit_agent_name,
            identity=self._config.livekit_identity,
        )
        await self._worker.run()

    @property
    def job_count(self) -> int:
        return len(self._stays)

    @property
    def load(self) -> float:
        return len(self._stays) / self._config.livekit_max_rooms

    async def work(self, url: str, token: str, job_id: str) -> None:
        """One room, to its end."""
        stay = self._stays[job_id] = self._stay(lambda: (url, token), stays=False)
        try:
            await stay.run()
        finally:
            del self._stays[job_id]
            self._left.set()

    def end(self, job_id: str) -> None:
        """The server wants the job ended."""
        stay = self._stays.get(job_id)
        if stay is not None:
            stay.leave()
