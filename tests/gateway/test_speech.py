"""Text in, sound out: when the first packet leaves, what credit allows, what `stop` cuts, what late text does."""

from __future__ import annotations

from typing import Any

import pytest
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.stream import FinishReason
from tests.edges import gateway
from tests.fakes import ToneCodec, ToneTtsLm, speak, tone
from tests.gateway.caller import calling, reason_of, until

TEXT = "The quick brown fox jumps over the lazy dog."


class Recording:
    """A talker that remembers what it was asked and every frame that it made."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.requests: list[Any] = []

    def submit(self, request: Any) -> Any:
        self.requests.append(request)
        return self.engine.submit(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def frames_of(*parts: tuple[str, int]) -> list[tuple[int, ...]]:
    return [frame for text, seed in parts for frame in speak(text, seed)]


async def test_the_first_packet_leaves_while_the_second_token_is_withheld() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.start()
        await caller.text("T")
        await caller.heard(1)
        assert caller.pcm == tone(speak("T", 7)[: caller.frame_count])[0].tobytes()
        await caller.text(TEXT[1:])
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()


async def test_packets_grow_as_one_two_four_unless_the_caller_says() -> None:
    talker = Recording(ToneTtsLm(step_s=0.002))
    async with gateway(talker) as server, calling(server.address) as caller:
        await caller.say(TEXT)
        assert [packet.frame_count for packet in caller.packets][:4] == [1, 2, 4, 4]
        await caller.say(TEXT, speech=tts_lm_pb2.GenerateStart(packet_ramp={"frames": [2, 3]}))
        assert [packet.frame_count for packet in caller.packets][:3] == [2, 3, 3]


async def test_text_offsets_rise_to_the_whole_text_and_durations_add_up() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.say(TEXT)
        offsets = [packet.text_offset for packet in caller.packets]
        assert offsets == sorted(offsets)
        assert offsets[-1] == len(TEXT)
        seconds = sum(packet.duration.ToNanoseconds() for packet in caller.packets) / 1e9
        assert seconds == pytest.approx(len(speak(TEXT)) * 0.08)


async def test_the_talker_runs_no_more_than_a_lead_ahead_of_what_the_caller_allows() -> None:
    talker = ToneTtsLm()
    async with gateway(talker) as server, calling(server.address) as caller:
        await caller.start(speech={"max_lead_frames": 5})
        await caller.text(TEXT)
        await caller.flush()
        await caller.heard(5)
        await caller.credit(3)
        await caller.heard(8)
        assert caller.frame_count == 8
        await caller.stop()
        ended = await caller.to_end()
        assert (caller.reason, ended.frame_count) == (FinishReason.CANCELLED, 8)


async def test_a_stop_frees_both_slots_and_the_stream_goes_on() -> None:
    talker, codec = ToneTtsLm(step_s=0.002), ToneCodec()
    async with gateway(talker, codec) as server, calling(server.address) as caller:
        await caller.start()
        await caller.text(TEXT)
        await caller.heard(3)
        await caller.stop()
        await caller.to_end()
        assert caller.reason is FinishReason.CANCELLED
        assert caller.ended.sample_count >= len(caller.pcm) // 2
        await until(lambda: talker.pool.free_count == talker.pool.total)
        await until(lambda: codec.pool.free_count == codec.pool.total)
        await caller.say("again")
        assert caller.pcm == tone(speak("again", 7))[0].tobytes()


async def test_a_caller_who_hangs_up_frees_both_slots() -> None:
    talker, codec = ToneTtsLm(step_s=0.002), ToneCodec()
    async with gateway(talker, codec) as server:
        async with calling(server.address) as caller:
            await caller.start()
            await caller.text(TEXT)
            await caller.heard(3)
        await until(lambda: talker.pool.free_count == talker.pool.total)
        await until(lambda: codec.pool.free_count == codec.pool.total)


async def test_an_utterance_with_no_text_ends_at_once_with_no_sound() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.start()
        await caller.flush()
        await caller.to_end()
        assert (caller.reason, caller.pcm) == (FinishReason.COMPLETED, b"")


async def test_max_frames_ends_with_length() -> None:
    async with gateway() as server, calling(server.address) as caller:
        ended = await caller.say(TEXT, speech={"max_frames": 6})
        assert (caller.reason, ended.frame_count, caller.frame_count) == (FinishReason.LENGTH, 6, 6)


@pytest.mark.parametrize("field", ["max_frames", "max_lead_frames"])
async def test_a_negative_count_of_frames_is_refused_and_the_stream_goes_on(field: str) -> None:
    async with gateway() as server, calling(server.address) as caller:
        ended = await caller.say(TEXT, speech=tts_lm_pb2.GenerateStart(**{field: -1}))
        assert (caller.reason, reason_of(ended)) == (FinishReason.FAILED, "INVALID")
        await caller.say("fine")
        assert caller.pcm == tone(speak("fine", 7))[0].tobytes()


async def test_whole_text_is_spoken_after_its_flush() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.start(speech={"text_layout": tts_lm_pb2.TEXT_LAYOUT_WHOLE})
        assert (await caller.next()).HasField("started")
        await caller.text(TEXT)
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()


async def test_speech_that_a_caller_resumes_goes_on_with_its_next_frame() -> None:
    frames = speak(TEXT, 7)
    codes = [code for frame in frames[:10] for code in frame]
    async with gateway() as server, calling(server.address) as caller:
        await caller.start(speech=tts_lm_pb2.GenerateStart(resume={"codes": codes, "text_token_count": 5}))
        await caller.text(TEXT)
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(frames)[0].tobytes()[10 * 3840 :]


async def test_a_text_that_never_ends_is_refused_before_it_is_kept() -> None:
    async with gateway(max_text_characters=100) as server, calling(server.address) as caller:
        await caller.start()
        await caller.text("x" * 60)
        await caller.text("x" * 60)
        await caller.to_end()
        assert caller.reason is FinishReason.FAILED
        assert "at most 100 characters" in caller.ended.error.message


# Late text.


async def test_late_text_is_a_pause_and_not_a_mistake() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.start()
        for character in TEXT:
            spoken = caller.frame_count
            await caller.text(character)
            await caller.heard(spoken + 1)
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()


async def test_a_boundary_closes_a_part_and_the_sound_goes_on_without_a_seam() -> None:
    talker = Recording(ToneTtsLm())
    async with gateway(talker) as server, calling(server.address) as caller:
        await caller.start()
        await caller.text("Hello there. ")
        await caller.boundary()
        await caller.heard(len(speak("Hello there. ")))
        await caller.text("And on.")
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(frames_of(("Hello there. ", 7), ("And on.", 8)))[0].tobytes()
        assert (caller.reason, caller.ended.text_token_count) == (FinishReason.COMPLETED, len("Hello there. And on."))
        assert caller.packets[-1].text_offset == len("Hello there. And on.")
        assert len(talker.requests) == 2


async def test_text_that_stays_away_closes_a_part_between_words() -> None:
    talker = Recording(ToneTtsLm())
    async with gateway(talker) as server, calling(server.address) as caller:
        await caller.start(speech=tts_lm_pb2.GenerateStart(text_timeout={"nanos": 50_000_000}))
        await caller.text("Good mor")
        await caller.heard(len(speak("Good ")))
        await until(lambda: talker.engine.pool.free_count == talker.engine.pool.total)
        await caller.text("ning to you")
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(frames_of(("Good ", 7), ("morning to you", 8)))[0].tobytes()


async def test_a_text_longer_than_the_model_is_steady_is_spoken_sentence_by_sentence_without_a_seam() -> None:
    talker = Recording(ToneTtsLm(steady_characters=10))
    async with gateway(talker) as server, calling(server.address) as caller:
        await caller.start()
        for piece in ("Hello there. An", "d on. ", "No. Yes. Last"):
            await caller.text(piece)
        await caller.flush()
        await caller.to_end()
        parts = ("Hello there. ", "And on. No. ", "Yes. Last")
        seeds = enumerate(parts, 7)
        assert caller.pcm == tone(frames_of(*((part, seed) for seed, part in seeds)))[0].tobytes()
        assert (caller.reason, caller.ended.text_token_count) == (FinishReason.COMPLETED, len("".join(parts)))
        assert caller.packets[-1].text_offset == len("".join(parts))
        assert len(talker.requests) == len(parts)


@pytest.mark.parametrize(
    ("settings", "speech"),
    [({"steady_characters": 0}, {}), ({}, {"reference_behaviour": True})],
    ids=["by configuration", "as the reference"],
)
async def test_a_long_text_stays_one_utterance_where_that_is_asked_for(
    settings: dict[str, int], speech: dict[str, bool]
) -> None:
    async with gateway(ToneTtsLm(steady_characters=10), **settings) as server, calling(server.address) as caller:
        await caller.start(speech=tts_lm_pb2.GenerateStart(**speech))
        await caller.text("Hello there. And on.")
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(speak("Hello there. And on.", 7))[0].tobytes()


async def test_a_text_that_the_voice_cannot_say_is_refused_before_anything_of_it_is_said() -> None:
    talker = Recording(ToneTtsLm(steady_characters=1, speakable_characters="abcdefghijklmnopqrstuvwxyzGO ."))
    async with gateway(talker) as server, calling(server.address) as caller:
        await caller.say("Good. One more. and \u4f60.")
        assert (caller.reason, caller.pcm) == (FinishReason.FAILED, b"")
        assert caller.ended.error.message == "This voice cannot say '\u4f60'. It speaks English, Chinese, German."
        await caller.say("Good. Go on.")
        assert caller.reason is FinishReason.COMPLETED


async def test_a_boundary_with_nothing_before_or_behind_it_says_nothing() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.start()
        await caller.boundary()
        await caller.text("One.")
        await caller.boundary()
        await caller.boundary()
        await caller.flush()
        await caller.to_end()
        assert (caller.reason, caller.pcm) == (FinishReason.COMPLETED, tone(speak("One.", 7))[0].tobytes())


async def test_a_cloned_voice_goes_on_from_the_part_before_once_that_is_long_enough() -> None:
    talker = Recording(ToneTtsLm())
    clone = tts_lm_pb2.Clone(speaker_vector=[0.5], codes=range(32), reference_text="reference")
    start = tts_lm_pb2.GenerateStart(voice=tts_lm_pb2.Voice(clone=clone))
    long, short = "A sentence that lasts for two seconds. ", "Short. "
    async with gateway(talker) as server, calling(server.address) as caller:
        await caller.start(speech=start)
        for part in (long, short, "End."):
            await caller.text(part)
            await caller.boundary()
        await caller.flush()
        await caller.to_end()
        references = [(request.voice.reference_text, len(request.voice.codes)) for request in talker.requests]
        spoken = (long.strip(), 16 * len(speak(long)))
        assert references == [("reference", 32), spoken, spoken]
