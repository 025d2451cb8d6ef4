"""A conversation over fake stages: what is asked is answered, what is unwanted falls silent, what was heard is kept."""

from __future__ import annotations

import asyncio
import weakref
from itertools import pairwise

import numpy as np
import pytest

from common.errors import InvalidRequest
from common.stream import FinishReason
from services.gateway.session import ports
from services.gateway.turns.settings import TurnSettings
from tests.fakes import ScriptedBrain, ToneCodec, ToneTtsLm, speak, tone
from tests.gateway.caller import until
from tests.gateway.session.home import Client, HearingBrain, home, loudness, silence, voice

STORY = ["word "] * 60
QUICK = TurnSettings(user_away_s=0.0)


def story(words):
    return STORY if "story" in words else [words]


async def test_a_typed_question_is_answered_aloud():
    async with home(ScriptedBrain(lambda words: [words])) as house:
        client = Client()
        house.open(client).type("Hi.")
        ended = await client.told(ports.AnswerEnded)
    assert (ended.reason, ended.heard_text) == (FinishReason.COMPLETED, "Hi.")
    expected, _ = tone(speak("Hi.", seed=0))
    heard = client.samples()
    assert np.array_equal(heard[: 480 * 4], expected[: 480 * 4])
    assert abs(heard.size - expected.size) < 480


async def speaks(dialogue, *sounds):
    """All of it at once: turns count samples, not time."""
    for sound in sounds:
        for at in range(0, sound.size, 320):
            dialogue.hear(sound[at : at + 320], asyncio.get_running_loop().time())


async def test_a_spoken_question_is_answered_and_the_brain_has_all_of_it():
    brain = HearingBrain()
    async with home(brain, settings=QUICK, new_listener=loudness) as house:
        client = Client()
        await speaks(house.open(client), silence(0.5), voice(0.5), silence(1.0))
        ended = await client.told(ports.AnswerEnded)
    assert ended.heard_text == "0.5 s "
    assert [type(event) for event in client.events if event.__class__.__name__.startswith(("User", "Turn"))] == [
        ports.UserSpeechStarted, ports.UserSpeechStopped, ports.TurnCommitted, ports.TurnMeasured,
    ]  # fmt: skip
    (turn,) = brain.turns
    before = np.flatnonzero(np.frombuffer(turn.pcm, "<i2"))[0] / 16000
    assert before == pytest.approx(0.3, abs=0.04), "the sound before the first word belongs to it"


async def test_an_answer_ends_at_what_the_voice_cannot_say():
    """What comes before it is heard; what follows would be said as if nothing had been left out."""
    letters = "abcdefghijklmnopqrstuvwxyz "
    brain = ScriptedBrain(lambda words: ["one two three four five "] * 4 + ["\u4f60 ", *["later "] * 8], step_s=0.3)
    async with home(brain, ToneTtsLm(speakable_characters=letters), settings=QUICK) as house:
        client = Client()
        house.open(client).type("go")
        await client.heard(0.3)
        ended = await client.told(ports.AnswerEnded)
    assert ended.reason is FinishReason.FAILED
    assert ended.heard_text == ("one two three four five " * 4).rstrip()
    assert len(client.all(ports.Failed)) == 1


async def test_of_a_conversation_that_is_over_no_sound_is_kept():
    async with home(ScriptedBrain(lambda words: [words]), settings=QUICK, new_listener=loudness) as house:
        dialogue = house.open(Client(), ports.SessionSettings(echo_cancellation=True))
        await speaks(dialogue, silence(2.0))
        assert dialogue.person.recording.cut(0)
        echo = weakref.ref(dialogue._ears.echo)
        await dialogue.close("enough")
        assert not dialogue.person.recording.cut(0)
        assert echo() is None, "who holds it holds AEC3's memory, of which Python's collector knows nothing"


async def test_an_answer_begun_too_early_is_never_heard_of():
    brain = HearingBrain(step_s=0.05)
    async with home(brain, settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        await speaks(dialogue, silence(0.2), voice(0.5), silence(0.2))
        await until(lambda: brain.turns and brain.turns[0].is_flushed)
        await speaks(dialogue, voice(0.4), silence(1.5))
        ended = await client.told(ports.AnswerEnded)
        assert ended.heard_text == "0.9 s "
        assert len(client.all(ports.AnswerStarted)) == 1
        assert len(client.all(ports.TurnCommitted)) == 1
        await until(lambda: brain.pool.free_count == brain.pool.total)


async def test_a_cough_holds_the_answer_and_not_a_sample_is_lost():
    async with home(ScriptedBrain(story), settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("a story")
        await client.heard(1.5)
        await speaks(dialogue, voice(0.1))
        await client.told(ports.StateChanged, state=ports.State.HOLD)
        await speaks(dialogue, silence(0.3))
        await client.told(ports.FalseInterruption, resumed=True)
        so_far = client.samples().size / 24000
        await client.heard(so_far + 0.5)
        blocks = [block for block in client.blocks if block.is_speech]
        for before, after in pairwise(blocks):
            gap = after.first_sample_offset - before.first_sample_offset
            assert 0 < gap <= 480, "a sample is missing or heard twice"
        assert not client.all(ports.AnswerEnded)


async def test_a_voice_over_an_answer_cuts_it_and_is_answered_with_what_was_heard_known():
    brain = HearingBrain(story)
    async with home(brain, settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("a story")
        await client.heard(1.5)
        await speaks(dialogue, voice(0.5), silence(1.0))
        cut = await client.told(ports.AnswerEnded, reason=FinishReason.CANCELLED)
        told = len(client.blocks)
        await client.told(ports.AnswerEnded, reason=FinishReason.COMPLETED)
    assert cut.heard_text
    assert "".join(STORY).startswith(cut.heard_text)
    assert brain.requests[-1].history[-1].text == cut.heard_text
    later = [block.epoch for block in client.blocks[told + 1 :]]  # the fade is one block
    assert cut.epoch not in later


async def test_noise_leaves_no_trace():
    brain = HearingBrain()
    async with home(brain, settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        await speaks(dialogue, silence(0.2), voice(0.07), silence(2.5))
        dialogue.type("x")
        await client.told(ports.AnswerEnded)
    assert not client.all(ports.TurnCommitted, typed=False)
    assert brain.requests[-1].history == ()


async def test_by_hand_a_turn_ends_when_the_client_says_so():
    by_hand = ports.SessionSettings(turn_detection=ports.TurnDetection(mode="none"))
    async with home(HearingBrain(), settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client, by_hand)
        await speaks(dialogue, voice(0.3), silence(3.0), voice(0.2))
        assert not client.all(ports.TurnCommitted)
        dialogue.commit()
        assert (await client.told(ports.AnswerEnded)).heard_text == "0.5 s "


async def test_an_answer_that_is_not_wanted_by_itself_comes_when_asked_for():
    asked_for = ports.SessionSettings(turn_detection=ports.TurnDetection(create_response=False))
    async with home(HearingBrain(), settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client, asked_for)
        await speaks(dialogue, voice(0.5), silence(1.0))
        await client.told(ports.TurnCommitted)
        assert not client.all(ports.AnswerStarted)
        dialogue.commit()
        assert (await client.told(ports.AnswerEnded)).heard_text == "0.5 s "


async def test_a_question_that_was_lost_with_its_connection_is_answered_on_the_next():
    async with home(ScriptedBrain(step_s=0.2), settings=QUICK) as house:
        lost, client = Client(), Client()
        dialogue = house.open(lost)
        dialogue.type("Hi")
        await lost.told(ports.StateChanged, state=ports.State.THINKING)
        dialogue.suspend()
        house.open(client, resume_token=dialogue.resume_token)
        assert (await client.told(ports.AnswerEnded)).heard_text == "Hi "
    assert lost.all(ports.AnswerEnded) == []


async def test_whoever_comes_back_hears_nothing_of_the_answer_that_was_lost():
    async with home(ScriptedBrain(story), settings=QUICK) as house:
        lost, client = Client(), Client()
        dialogue = house.open(lost)
        dialogue.type("a story")
        await lost.heard(0.5)
        dialogue.suspend()
        house.open(client, resume_token=dialogue.resume_token)
        dialogue.type("Hi.")
        await client.told(ports.AnswerEnded)
    assert {block.epoch for block in client.blocks} == {dialogue.epoch}


async def test_nobody_comes_back_and_the_session_ends():
    async with home(ScriptedBrain(), settings=TurnSettings(resume_s=0.05)) as house:
        dialogue = house.open(Client())
        dialogue.suspend()
        await dialogue.over()
        assert house.conversations.registry.all == []


async def test_after_two_failures_two_tones_say_so_and_the_next_question_is_answered():
    failing = HearingBrain(lambda words: [words] if words == "x" else 1 / 0)
    async with home(failing, settings=QUICK) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("fail")
        await client.until(lambda: len(client.all(ports.AnswerEnded)) == 3)
        assert {event.reason for event in client.all(ports.AnswerEnded)} == {FinishReason.FAILED}
        assert client.all(ports.Failed)
        assert client.samples().size
        dialogue.type("x")
        await client.told(ports.AnswerEnded, reason=FinishReason.COMPLETED)


async def test_an_answer_that_does_not_come_in_time_says_so():
    late = TurnSettings(user_away_s=0.0, first_text_s=0.2)
    async with home(ScriptedBrain(lambda words: ["x"], step_s=1.0), settings=late) as house:
        client = Client()
        house.open(client).type("Hi.")
        await client.until(lambda: len(client.all(ports.AnswerEnded)) == 3)
    assert {event.reason for event in client.all(ports.AnswerEnded)} == {FinishReason.FAILED}
    assert [event.error.reason for event in client.all(ports.AnswerEnded)] == ["OUT_OF_TIME"] * 3


async def test_an_answer_that_stops_in_its_middle_says_so():
    stalling = TurnSettings(user_away_s=0.0, stall_s=0.5)
    async with home(ScriptedBrain(lambda words: ["Hello there. ", "x"], step_s=3.0), settings=stalling) as house:
        client = Client()
        house.open(client).type("Hi.")
        ended = await client.told(ports.AnswerEnded)
    assert (ended.reason, ended.error.reason) == (FinishReason.FAILED, "OUT_OF_TIME")


async def test_what_a_voice_cannot_say_is_refused_once_with_its_message():
    class Speechless(ToneTtsLm):
        def submit(self, request):
            raise InvalidRequest("This voice says no Chinese.", field="text")

    brain = HearingBrain()
    async with home(brain, Speechless(), settings=QUICK) as house:
        client = Client()
        house.open(client).type("x")
        await client.until(lambda: len(client.all(ports.AnswerEnded)) == 2)  # the answer, and the tones that say so
        (told,) = client.all(ports.Failed)
        assert told.error.message == "This voice says no Chinese."
        assert client.all(ports.AnswerEnded)[-1].error.message == "This voice says no Chinese."
        assert len(brain.requests) == 1


SLOW = {
    "a brain that halts before each word": {"brain": ScriptedBrain(lambda words: words.split(), step_s=0.5)},
    "a talker slower than speech": {"talker": ToneTtsLm(step_s=0.11)},
    "a codec slower than speech": {"codec": ToneCodec(step_s=0.3)},
}


@pytest.mark.parametrize("slow", SLOW)
async def test_what_is_slow_makes_pauses_and_loses_nothing(slow):
    stages = {"brain": ScriptedBrain(lambda words: words.split()), **SLOW[slow]}
    async with home(**stages, settings=QUICK) as house:
        client = Client()
        house.open(client).type("one two")
        ended = await client.told(ports.AnswerEnded)
    assert (ended.reason, ended.heard_text) == (FinishReason.COMPLETED, "onetwo")
    expected, _ = tone(speak("onetwo", seed=0))
    blocks = [block for block in client.blocks if block.is_speech]
    assert blocks[-1].first_sample_offset + 480 >= expected.size
    for before, after in pairwise(blocks):
        assert 0 < after.first_sample_offset - before.first_sample_offset <= 480, "a sample is missing or heard twice"


async def test_sessions_share_nothing():
    async with home(ScriptedBrain(lambda words: [words]), settings=QUICK) as house:
        clients = [Client() for _ in range(4)]
        for number, client in enumerate(clients):
            house.open(client).type(f"{number}{number}")
        ended = [await client.told(ports.AnswerEnded) for client in clients]
    assert [each.heard_text for each in ended] == ["00", "11", "22", "33"]
    for number, client in enumerate(clients):
        expected, _ = tone(speak(f"{number}{number}", seed=0))
        assert np.array_equal(client.samples()[:1920], expected[:1920])
