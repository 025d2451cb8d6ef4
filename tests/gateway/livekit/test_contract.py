"""The fake is the SDK, as far as signatures tell: a version of the SDK that differs fails here."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from livekit import rtc
from livekit.rtc.room import EventTypes

import services.gateway.livekit
from tests.gateway.livekit import fake_sdk

PAIRS = [
    (fake_sdk.FakeRoom, rtc.Room),
    (fake_sdk.FakeLocalParticipant, rtc.LocalParticipant),
    (fake_sdk.FakeLocalTrackPublication, rtc.LocalTrackPublication),
    (fake_sdk.FakeRemoteParticipant, rtc.RemoteParticipant),
    (fake_sdk.FakePublication, rtc.RemoteTrackPublication),
    (fake_sdk.FakeAudioSource, rtc.AudioSource),
    (fake_sdk.FakeAudioStream, rtc.AudioStream),
    (fake_sdk.FakeLocalAudioTrack, rtc.LocalAudioTrack),
    (fake_sdk.FakeWriter, rtc.TextStreamWriter),
]
FOR_TESTS = {"write"}  # of the room: somebody else's message


def shape(function: Any) -> tuple[bool, list[tuple[str, Any, Any]]]:
    """What a caller has to know: names, kinds and defaults of the parameters, and whether to await."""
    parameters = inspect.signature(function).parameters.values()
    plain = [(it.name, it.kind, getattr(it.default, "value", it.default)) for it in parameters]
    return inspect.iscoroutinefunction(function), plain


def members(fake: type) -> list[str]:
    skipped = FOR_TESTS if fake is fake_sdk.FakeRoom else set()
    return [name for name in vars(fake) if not name.startswith("_") and name not in skipped]


@pytest.mark.parametrize(("fake", "real"), PAIRS, ids=[real.__name__ for _, real in PAIRS])
def test_what_the_fake_does_the_sdk_does_by_the_same_signature(fake: type, real: type) -> None:
    names = members(fake)
    assert names, "a fake without members proves nothing"
    for name in names:
        ours, theirs = inspect.getattr_static(fake, name), inspect.getattr_static(real, name)
        assert isinstance(ours, property) == isinstance(theirs, property), name
        if not isinstance(ours, property):
            on_class = (staticmethod, classmethod)
            assert isinstance(ours, on_class) == isinstance(theirs, on_class), name
            assert str(shape(getattr(fake, name))) == str(shape(getattr(real, name))), name


def test_the_audio_source_is_made_as_the_sdk_makes_it() -> None:
    assert shape(fake_sdk.FakeAudioSource.__init__)[1] == shape(rtc.AudioSource.__init__)[1]


def test_the_sdk_has_every_name_and_event_that_is_used() -> None:
    used, events = set(), set()
    for path in Path(services.gateway.livekit.__file__).parent.glob("*.py"):
        source = path.read_text()
        used |= set(re.findall(r"\b(?:self\._)?sdk\.([A-Z]\w+)", source))
        events |= set(re.findall(r'room\.on\(\s*"(\w+)"', source))
    assert used <= set(dir(rtc))
    assert used <= set(dir(fake_sdk.FakeSdk)), "the fake lacks some"
    assert len(events) >= 5
    assert events <= set(get_args(EventTypes))


def test_streams_of_text_and_sound_are_read_as_the_sdk_wants() -> None:
    for real in (rtc.TextStreamReader, rtc.AudioStream):
        assert hasattr(real, "__aiter__")
    assert list(inspect.signature(rtc.TextStreamReader.__aiter__).parameters) == ["self"]
    frame = rtc.AudioFrame(b"\0\0" * 160, 16000, 1, 160)
    assert (len(bytes(frame.data)), frame.samples_per_channel) == (320, 160)


def test_the_events_carry_what_we_take() -> None:
    """The SDK cuts arguments that a handler does not name; those we name must be there, in that order."""
    documentation = inspect.getdoc(rtc.Room.on) or ""
    for event, arguments in {
        "participant_connected": ["participant"],
        "participant_disconnected": ["participant"],
        "track_published": ["publication", "participant"],
        "track_subscribed": ["track", "publication", "participant"],
        "track_unsubscribed": ["track", "publication", "participant"],
        "disconnected": ["reason"],
    }.items():
        told = re.search(rf'"{event}"\*\*.*?\n\s+- Arguments: (.*)', documentation)
        assert told is not None, event
        assert re.findall(r"`(\w+)`", told[1]) == arguments, event
