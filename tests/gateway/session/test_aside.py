"""Speech over an answer, in the hearing of a brain that says what it understood."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from common.stream import FinishReason
from services.brain import types as brain
from services.brain.backends.offline import OfflineBackend
from services.brain.engine import BrainEngine
from services.brain.options import OfflineOptions
from services.gateway.session import ports
from services.gateway.session.house import Numbers
from services.gateway.turns.settings import TurnSettings
from tests.gateway.caller import until
from tests.gateway.session.home import Client, HearingBrain, HearingTurn, home, loudness, silence, voice

SPEECH = Path(__file__).parents[2] / "brain" / "speech"
STORY = ["word "] * 60
QUICK = TurnSettings(user_away_s=0.0)


class UnderstandingTurn(HearingTurn):
    """What was said is given once it is over, as the brain's backends do."""

    words = ""

    async def __aiter__(self) -> Any:
        wanted = self._request.want_transcript
        async for event in super().__aiter__():
            if wanted and self.pcm and not isinstance(event, brain.Started):
                wanted = False
                yield brain.Transcript(self.words, True)
            yield event


class UnderstandingBrain(HearingBrain):
    """Understands `words` in every sound."""

    def __init__(self, words: str) -> None:
        super().__init__(lambda said: STORY if "story" in said else ["Aha."])
        self.words = words

    def submit(self, request: Any) -> HearingTurn:
        self.requests.append(request)
        turn = UnderstandingTurn(request, self._script, self.pool, self._step_s)
        turn.words = self.words
        self.turns.append(turn)
        return turn


async def speaks(dialogue: Any, *sounds: np.ndarray[Any, Any]) -> None:
    for sound in sounds:
        for at in range(0, sound.size, 320):
            dialogue.hear(sound[at : at + 320], asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("words", ["mhm", "yes", "嗯"])
async def test_whoever_says_that_they_listen_does_not_silence_a_story(words: str) -> None:
    understanding = UnderstandingBrain(words)
    async with home(understanding, settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("a story")
        await client.heard(1.5)
        await speaks(dialogue, voice(0.4), silence(0.2))
        await until(lambda: understanding.turns[-1].is_flushed)
        await speaks(dialogue, silence(0.1), silence(0.1))
        await client.told(ports.Backchannel)
        so_far = client.samples().size / 24000
        await client.heard(so_far + 0.3)
        assert not client.all(ports.AnswerEnded)
        assert not client.all(ports.UserSpeechStarted)
        await until(lambda: understanding.pool.free_count == understanding.pool.total)
    overheard = understanding.requests[1]
    assert (overheard.speculative, overheard.want_transcript, overheard.history) == (True, True, ())
    assert len(understanding.requests) == 2, "nobody was answered"


@pytest.mark.parametrize("words", ["stop", "Tuesday", "等一下"])
async def test_whoever_says_something_else_does(words: str) -> None:
    async with home(UnderstandingBrain(words), settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("a story")
        await client.heard(1.5)
        await speaks(dialogue, voice(0.4), silence(0.2))
        cut = await client.told(ports.AnswerEnded)
        assert cut.reason is FinishReason.CANCELLED
        await speaks(dialogue, silence(1.0))
        await client.told(ports.AnswerEnded, reason=FinishReason.COMPLETED, heard_text="Aha.")


async def test_noise_that_nobody_understands_lets_it_go_on() -> None:
    async with home(UnderstandingBrain(""), settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("a story")
        await client.heard(1.5)
        await speaks(dialogue, voice(0.4), silence(0.2), silence(0.1))
        await client.told(ports.FalseInterruption, resumed=True)
        assert not client.all(ports.AnswerEnded)


async def test_it_can_be_switched_off() -> None:
    understanding = UnderstandingBrain("mhm")
    numbers = Numbers(overlap_by_words=False)
    async with home(understanding, settings=QUICK, numbers=numbers, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("a story")
        await client.heard(1.5)
        await speaks(dialogue, voice(0.4))
        assert (await client.told(ports.AnswerEnded)).reason is FinishReason.CANCELLED


async def test_a_house_full_of_brains_in_use_goes_by_length() -> None:
    understanding = UnderstandingBrain("mhm")
    async with home(understanding, settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("a story")
        await client.heard(1.5)
        leases = [understanding.pool.lease() for _ in range(understanding.pool.free_count)]
        await speaks(dialogue, voice(0.4), silence(0.2))
        assert (await client.told(ports.AnswerEnded)).reason is FinishReason.CANCELLED
        for lease in leases:
            assert lease is not None
            understanding.pool.release(lease)


@pytest.mark.parametrize(("said", "silences"), [("yes", False), ("mhm", False), ("stop", True)])
async def test_real_ears_and_a_real_voice_detector_tell_yes_from_stop(said: str, silences: bool) -> None:
    """The offline brain's recogniser, silero, and espeak-ng's voice; only the clock of the verdict is slowed down."""
    engine = BrainEngine(OfflineBackend(OfflineOptions(tokens_per_s=0)))
    await engine.start()
    patient = TurnSettings(user_away_s=0.0, hold_s=30.0, overlap_verdict_s=20.0)
    sound, _ = soundfile.read(SPEECH / f"{said}.flac", dtype="int16")
    async with home(engine, settings=patient) as house:
        client = Client()
        dialogue = house.open(client)
        dialogue.type("tell me a long story")
        await client.heard(1.5)
        await speaks(dialogue, silence(0.3), sound, silence(0.3))
        await client.told(ports.StateChanged, state=ports.State.HOLD)
        if silences:
            assert (await client.told(ports.AnswerEnded)).reason is FinishReason.CANCELLED
        else:
            held = len(client.all(ports.StateChanged))
            while len(client.all(ports.StateChanged)) == held:  # windows must come for it to go on
                await speaks(dialogue, silence(0.1))
            await client.heard(client.samples().size / 24000 + 0.3)
            assert not client.all(ports.AnswerEnded)
    await engine.close()
