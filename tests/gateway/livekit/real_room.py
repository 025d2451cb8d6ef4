"""A person of the SDK's own in a room of a real server, for the opt-in test. Never run where there is no server."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

import numpy as np
from livekit import api, rtc

from services.gateway.livekit.config import LiveKitConfig
from services.gateway.livekit.rooms import Rooms
from services.gateway.session.ports import State, StateChanged, Transcript
from tests.gateway.livekit.house import House, block, until


async def converse(url: str) -> None:
    """Raises where sound, words or state do not arrive."""
    name, house = f"test-{uuid.uuid4().hex}", House()
    found: Any = house
    key, secret = os.environ["LIVEKIT_API_KEY"], os.environ["LIVEKIT_API_SECRET"]
    settings: Any = {"livekit_url": url, "livekit_room": name, "livekit_api_key": key, "livekit_api_secret": secret}
    rooms = Rooms(LiveKitConfig(**settings), lambda: found)
    await rooms.start()
    person, texts, heard = rtc.Room(), list[str](), asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def read(reader: rtc.TextStreamReader, identity: str) -> None:
        async def collect() -> None:
            texts.append(await reader.read_all())

        tasks.add(asyncio.create_task(collect()))

    def listen(track: rtc.Track, publication: Any, participant: Any) -> None:
        async def loud() -> None:
            async for event in rtc.AudioStream.from_track(track=track, sample_rate=24000, num_channels=1):
                if np.abs(np.frombuffer(event.frame.data, np.int16)).max() > 1000:
                    heard.set()
                    return

        tasks.add(asyncio.create_task(loud()))

    try:
        person.register_text_stream_handler("lk.transcription", read)
        person.on("track_subscribed", listen)
        grants = api.VideoGrants(room_join=True, room=name)
        token = api.AccessToken(key, secret).with_identity("ada").with_grants(grants).to_jwt()
        await person.connect(url, token)
        source = rtc.AudioSource(16000, 1)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        track = rtc.LocalAudioTrack.create_audio_track("mic", source)
        await person.local_participant.publish_track(track, options)
        tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(160) / 16000)).astype(np.int16)
        await until(lambda: house.opened)
        (ada,) = house.opened
        while not ada.heard:
            await source.capture_frame(rtc.AudioFrame(tone.tobytes(), 16000, 1, 160))
        ada.tell(StateChanged(State.SPEAKING, 1, 0), Transcript(1, user=False, text="Hello.", final=True))
        agent = next(iter(person.remote_participants.values()))
        while not heard.is_set():
            if ada.transport.ready:
                ada.play(block(8000))
            await asyncio.sleep(0.01)
        await until(lambda: texts == ["Hello."] and agent.attributes.get("lk.agent.state") == "speaking")
    finally:
        for task in tasks:
            task.cancel()
        await person.disconnect()
        await rooms.close()
