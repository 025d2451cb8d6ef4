"""What only the real weights can prove: Qwen3-Omni understands, writes down and calls. See docs/unproven.md."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.brain.admission import BrainEngine
from services.brain.engine import BackendOptions, LocalOptions, create_engine
from services.brain.limits import BrainLimits
from services.brain.types import BrainSampling, Ended, Message, Role, Transcript, TurnRequest
from tests.brain.home import CLOCK, answer, begin, events_of, speech, text_of, tool_calls

WEIGHTS = os.environ.get("VOICEMESH_WEIGHTS", "")
MODEL = Path(WEIGHTS) / "Qwen3-Omni-30B-A3B-Instruct"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.weights,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (WEIGHTS and MODEL.is_dir()), reason=f"no {MODEL.name} in VOICEMESH_WEIGHTS"),
]
GREEDY = BrainSampling(temperature=0, max_tokens=128)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[BrainEngine]:
    local = LocalOptions("", device="cuda", local_files_only=True, max_model_tokens=16384)
    limits = BrainLimits(first_delta_timeout_s=120)
    running = create_engine(BackendOptions(f"vllm:{MODEL}", local=local), limits, "Answer in one short sentence.")
    await running.start()
    yield running
    await running.close()


async def test_a_spoken_sum_is_understood_and_written_down(engine: BrainEngine) -> None:
    events = await events_of(begin(engine, speech("sum"), TurnRequest(sampling=GREEDY, want_transcript=True)))
    said = text_of(events).lower()
    assert "43" in said or "forty" in said
    written = [event.text.lower() for event in events if isinstance(event, Transcript) and event.final]
    assert written
    assert "plus" in written[0] or "+" in written[0]


async def test_an_earlier_recording_is_remembered_and_cached(engine: BrainEngine) -> None:
    first, _ = await answer(engine, speech("sum"), TurnRequest(sampling=GREEDY))
    history = (Message(Role.USER, audio=speech("sum")), Message(Role.ASSISTANT, first))
    said, end = await answer(engine, "Add one to that number.", TurnRequest(history=history, sampling=GREEDY))
    assert "44" in said or "forty" in said.lower()
    assert end.cached_token_count > 0


async def test_a_tool_is_called_by_its_schema(engine: BrainEngine) -> None:
    turn = begin(engine, "What time is it in UTC? Use the clock.", TurnRequest(tools=(CLOCK,), sampling=GREEDY))
    events = []
    async for event in turn:
        events.append(event)
        for call in tool_calls([event]):
            turn.tool_result(call.call.id, "It is 14:37.")
    assert tool_calls(events)[0].call.arguments.get("zone") == "UTC"
    assert isinstance(events[-1], Ended)
    assert any(time in text_of(events) for time in ("14:37", "2:37"))


async def test_its_tokens_are_the_speech_models_tokens(engine: BrainEngine) -> None:
    from services.tts_lm.model.tokenizer import load_tokenizer

    speech_model = Path(WEIGHTS) / "Qwen3-TTS-12Hz-0.6B-CustomVoice"
    if not speech_model.is_dir():
        pytest.skip(f"no {speech_model.name} in VOICEMESH_WEIGHTS")
    assert engine.info().tokenizer_fingerprint == load_tokenizer(speech_model).fingerprint
