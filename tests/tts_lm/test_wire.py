"""The promises of tts_lm, as a client over real gRPC sees them."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from pathlib import Path

import pytest
from voicemesh.tts_lm.v1 import tts_lm_pb2

from tests.tts_lm.conftest import on_both, serve
from tests.tts_lm.stored import checkpoint_named, load_store, open_checkpoint
from tests.tts_lm.wire import Client, Spoken, credit, eventually, flush, start, stop, words
from tools.reference.talker_cases import CASES

TEXT = "Hello world. 你好，今天天气很好 don't wait!  Good café."
WHOLE, STREAMING = tts_lm_pb2.TEXT_LAYOUT_WHOLE, tts_lm_pb2.TEXT_LAYOUT_STREAMING


def cut(text: str, seed: int) -> list[str]:
    generator, deltas = random.Random(seed), []
    while text:
        size = generator.choice([1, 1, 2, 3, 8])
        deltas.append(text[:size])
        text = text[size:]
    return deltas


# Promise 1: timing never changes speech


@on_both
@pytest.mark.parametrize("layout", [STREAMING, WHOLE])
async def test_cuts_delays_ids_and_packets_never_change_a_code(talker: Client, layout: int) -> None:
    expected = (await talker.say(TEXT, text_layout=layout)).codes
    assert len(expected) > 10
    for seed in range(4):
        deltas: list[object] = list(cut(TEXT, seed))
        if seed % 2:  # late text: the row has to wait between the deltas
            deltas = [part for delta in deltas for part in (delta, lambda: asyncio.sleep(0.004))]
        ramp = tts_lm_pb2.PacketRamp(frames=[1, 2, 4] if seed > 1 else [3])
        assert (await talker.say(deltas, text_layout=layout, packet_ramp=ramp)).codes == expected
    from services.tts_lm.model.tokenizer import load_tokenizer

    ids = load_tokenizer(Path(talker.engine._options.model)).target(TEXT)
    assert (await talker.say([ids[:1], ids[1:]], text_layout=layout)).codes == expected


@pytest.mark.parametrize(
    ("kernels", "deterministic"), [("torch", True), ("native", True), ("native", False)], indirect=["kernels"]
)
async def test_company_never_changes_a_code_in_the_deterministic_profile(
    tiny: Path, kernels: str, deterministic: bool
) -> None:
    """Nor in the fast profile of the native kernels, whose rows never tell each other apart."""
    lines = [("Hello world.", 1), (TEXT, 2), ("Yes.", 3), ("Good morning to you.", 4)] * 2
    async with serve(tiny, slot_count=8, deterministic=deterministic, kernels=kernels) as talker:
        alone = [(await talker.say(text, seed=seed)).codes for text, seed in lines]
        spread = [talker.say(cut(text, seed), seed=seed) for text, seed in lines]

        together = await asyncio.gather(*spread)

        assert [spoken.codes for spoken in together] == alone
        assert alone[:4] == alone[4:]  # other slots, same codes


async def test_the_same_seed_repeats_and_a_drawn_one_is_reported(talker: Client) -> None:
    drawn = await talker.say("Hello world.", sampling=tts_lm_pb2.Sampling(temperature=1.0))
    again = await talker.say("Hello world.", sampling=tts_lm_pb2.Sampling(temperature=1.0, seed=drawn.seed))
    other = await talker.say("Hello world.", sampling=tts_lm_pb2.Sampling(temperature=1.0, seed=drawn.seed ^ 1))
    assert drawn.codes == again.codes != other.codes


# Promise 3: it is the reference model


@on_both
@pytest.mark.parametrize("name", ["custom-b", "base-a", "design-b"])
async def test_greedy_codes_over_the_wire_are_those_of_the_reference(name: str, tmp_path: Path, kernels: str) -> None:
    checkpoint, store = checkpoint_named(name), load_store(name)
    open_checkpoint(checkpoint, tmp_path)
    async with serve(tmp_path, slot_count=4, kernels=kernels) as talker:
        for case in CASES[checkpoint.type]:
            spoken = await asyncio.gather(
                *(
                    talker.say(
                        line.text,
                        sampling=tts_lm_pb2.Sampling(greedy=True),
                        max_frames=case.frames,
                        reference_behaviour=True,
                        language=line.language,
                        instruct=line.instruct,
                        text_layout=WHOLE if case.layout == "whole" else STREAMING,
                        **voice_of(store, f"{case.name}/", i, line.voice, line.reference_text),
                    )
                    for i, line in enumerate(case.lines)
                )
            )
            for i, one in enumerate(spoken):
                assert one.codes == list(map(tuple, store[f"{case.name}/codes{i}"].tolist())), (case.name, i)


def voice_of(store: dict, prefix: str, i: int, name: str, text: str) -> dict:  # type: ignore[type-arg]
    vector = store.get(f"{prefix}vector{i}")
    if vector is None:
        return {"voice": name} if name else {}
    codes = store[f"{prefix}reference{i}"].flatten().tolist()
    clone = tts_lm_pb2.Clone(speaker_vector=vector.tolist(), codes=codes, reference_text=text)
    message = tts_lm_pb2.Voice(clone=clone)
    return {"voice_message": message}


# Promise 4: speech begins before the text ends


async def test_the_first_frame_comes_with_the_first_token(talker: Client) -> None:
    stream = talker.stream()
    await stream.send(start(), words("Hello world"))
    assert (await stream.read()).WhichOneof("payload") == "started"
    first = await stream.read()
    assert first.frames.first_frame_index == 0
    assert first.frames.text_token_count >= 1
    stream.end()


# Promise 5: late text is a pause, not a mistake


@on_both
async def test_a_row_waits_for_late_text_and_goes_on_where_it_was(talker: Client) -> None:
    expected = (await talker.say(TEXT)).codes
    stream = talker.stream()
    await stream.send(start(), words("Hello wor"))
    heard: list[tuple[int, ...]] = []
    await stream.read()
    while len(heard) < 1:
        message = (await stream.read()).frames
        heard += [tuple(message.codes[i : i + 16]) for i in range(0, len(message.codes), 16)]
    before = talker.engine._live[next(iter(talker.engine._live))].sequence
    await eventually(before.lacks_text)
    produced = before.frame_count
    await asyncio.sleep(0.05)
    assert before.frame_count == produced  # nothing is invented while it waits
    await stream.send(words(TEXT.removeprefix("Hello wor")), flush())
    while True:
        response = await stream.read()
        if response.WhichOneof("payload") == "ended":
            break
        message = response.frames
        heard += [tuple(message.codes[i : i + 16]) for i in range(0, len(message.codes), 16)]
    assert heard == expected
    stream.end()


async def test_text_that_stays_away_ends_as_text_timeout(talker: Client) -> None:
    stream = talker.stream()
    await stream.send(start(text_timeout={"nanos": 50_000_000}), words("Hello world"))
    assert (await stream.hear()).reason == "TEXT_TIMEOUT"
    stream.end()


# Promise 6: nothing stale is heard


@on_both
async def test_stop_at_every_frame_ends_it_there_and_frees_the_slot(talker: Client) -> None:
    expected = (await talker.say(TEXT)).codes
    stream = talker.stream()
    for epoch, frame in enumerate(range(min(len(expected), 12)), 1):

        async def stop_at(spoken: Spoken, frame: int = frame, epoch: int = epoch) -> None:
            if len(spoken.codes) == frame + 1:
                await stream.send(stop(epoch))

        await stream.send(start(epoch), words(TEXT, epoch), flush(epoch))
        spoken = await stream.hear(epoch, react=stop_at)
        assert spoken.codes == expected[: len(spoken.codes)]
        assert spoken.reason in ("CANCELLED", "COMPLETED", "RUNAWAY")
        assert spoken.ended.frame_count == len(spoken.codes)
        await eventually(lambda: talker.engine.info().free_slot_count == 2)
    stream.end()


async def test_stop_before_any_text_and_before_the_first_frame(talker: Client) -> None:
    stream = talker.stream()
    for epoch, text in enumerate(["", "Hello world. "], 1):
        await stream.send(start(epoch))
        if text:
            await stream.send(words(text, epoch))
        await stream.send(stop(epoch))
        assert (await stream.hear(epoch)).reason == "CANCELLED"
    await stream.send(start(3), words("Yes.", 3), flush(3))
    assert (await stream.hear(3)).codes == (await talker.say("Yes.")).codes
    stream.end()


async def test_a_newer_epoch_ends_the_older_and_its_frames_never_follow(talker: Client) -> None:
    stream = talker.stream()
    await stream.send(start(epoch=1), words(TEXT, epoch=1))
    await stream.read()
    await stream.read()
    await stream.send(start(epoch=2), words("Yes.", epoch=2), words(TEXT, epoch=1), flush(epoch=2))
    epochs = []
    while True:
        response = await stream.read()
        epochs.append(response.epoch)
        if response.epoch == 2 and response.WhichOneof("payload") == "ended":
            break
    assert epochs == sorted(epochs)
    stream.end()


@on_both
async def test_a_reused_slot_speaks_like_a_fresh_one(tiny: Path, kernels: str) -> None:
    async with serve(tiny, slot_count=1, kernels=kernels) as talker:
        first = await talker.say("Good morning.")
        await talker.say(TEXT, seed=3, sampling=tts_lm_pb2.Sampling(greedy=True, repetition_penalty=1.5))
        assert (await talker.say("Good morning.")).codes == first.codes


async def test_a_caller_that_hangs_up_frees_its_slot(talker: Client) -> None:
    stream = talker.stream()
    await stream.send(start(), words("Hello world. "))
    await stream.read()
    await eventually(lambda: talker.engine.info().free_slot_count == 1)
    stream.end()
    await eventually(lambda: talker.engine.info().free_slot_count == 2)


# Promise 7: every utterance ends once, with its reason


async def test_limits_are_told_from_completion(talker: Client) -> None:
    long = await talker.say(TEXT, max_frames=5)
    assert (long.reason, len(long.codes), long.ended.frame_count) == ("LENGTH", 5, 5)
    assert (await talker.say("")).reason == "COMPLETED"
    assert (await talker.say(" \n ")).codes == []
    runs = [await talker.say("Yes.", seed=seed) for seed in range(6)]
    for run in runs:
        assert run.reason in ("COMPLETED", "RUNAWAY")
        assert (run.reason == "RUNAWAY") == (len(run.codes) >= 75 + 6 * run.tokens[-1])


async def test_packets_follow_the_ramp(talker: Client) -> None:
    spoken = await talker.say(TEXT, packet_ramp=tts_lm_pb2.PacketRamp(frames=[1, 2, 4]), text_layout=WHOLE)
    full = deque((1, 2, 4))  # a packet is sent before it is full where a listener would run dry, as on a busy machine
    for size in spoken.sizes[:-1]:
        assert size <= full[0]
        if size == full[0] and len(full) > 1:
            full.popleft()
    assert max(spoken.sizes) > 1
    assert sum(spoken.sizes) == len(spoken.codes)


async def test_credit_bounds_what_is_produced(talker: Client) -> None:
    stream = talker.stream()
    await stream.send(start(max_lead_frames=3, text_layout=WHOLE), words(TEXT), flush())
    await stream.read()
    heard = 0
    while heard < 3:
        heard += (await stream.read()).frames.frame_count
    assert heard == 3
    utterance = next(iter(talker.engine._live.values()))
    await asyncio.sleep(0.05)
    assert utterance.sequence.frame_count == 3
    await stream.send(credit(2))
    while heard < 5:
        heard += (await stream.read()).frames.frame_count
    assert heard == 5
    stream.end()


@on_both
async def test_resume_continues_with_the_same_codes(talker: Client) -> None:
    """Greedy: one prefill instead of many steps changes the last bits of a float32 logit, not its order."""
    whole = await talker.say(TEXT, sampling=tts_lm_pb2.Sampling(greedy=True), max_frames=24)
    for kept in (1, 2, 7, 20):
        codes = [code for frame in whole.codes[:kept] for code in frame]
        resume = tts_lm_pb2.Resume(codes=codes, text_token_count=kept)
        left = len(whole.codes) - kept  # the limit counts what is delivered
        rest = await talker.say(TEXT, sampling=tts_lm_pb2.Sampling(greedy=True), max_frames=left, resume=resume)
        assert rest.codes == whole.codes[kept:]
        assert rest.ended.frame_count == len(rest.codes)


async def test_a_full_house_refuses_at_once_and_serves_again(tiny: Path) -> None:
    async with serve(tiny, slot_count=1) as talker:
        first, second = talker.stream(), talker.stream()
        await first.send(start(), words("Hello world"))
        await first.read()
        await second.send(start())
        refused = await second.hear()
        assert refused.reason == "FAILED"
        assert refused.ended.error.code == 8  # RESOURCE_EXHAUSTED
        await first.send(stop())
        await first.hear()
        await second.send(start(utterance=1), words("Yes.", utterance=1), flush(utterance=1))
        assert (await second.hear(utterance=1)).codes
        first.end()
        second.end()


def _clone(**fields: object) -> tts_lm_pb2.Voice:
    return tts_lm_pb2.Voice(clone=tts_lm_pb2.Clone(**fields))


VECTOR = [0.1] * 64
INVALID, NOT_FOUND = 3, 5
BAD_STARTS = {
    "unknown voice": ("custom", {"voice": "nobody"}, NOT_FOUND, "the voices are serena"),
    "unknown language": ("custom", {"language": "klingon"}, NOT_FOUND, "the languages are auto, chinese"),
    "a dialect by name": ("custom", {"language": "sichuan_dialect"}, NOT_FOUND, "no language"),
    "clone on a preset model": ("custom", {"voice_message": _clone(speaker_vector=VECTOR)}, INVALID, "cannot clone"),
    "temperature zero": ("custom", {"sampling": tts_lm_pb2.Sampling(temperature=0)}, INVALID, "temperature"),
    "negative top-k": ("custom", {"sampling": tts_lm_pb2.Sampling(top_k=-1)}, INVALID, "top_k"),
    "top-p above one": ("custom", {"sampling": tts_lm_pb2.Sampling(top_p=1.5)}, INVALID, "top_p"),
    "not a number": ("custom", {"sampling": tts_lm_pb2.Sampling(temperature=float("nan"))}, INVALID, "temperature"),
    "negative frames": ("custom", {"max_frames": -1}, INVALID, "max_frames"),
    "a very long instruct": ("custom", {"instruct": "x" * 5000}, INVALID, "instruct"),
    "resume with half a frame": (
        "custom",
        {"resume": tts_lm_pb2.Resume(codes=[1] * 15)},
        INVALID,
        "multiple of the 16",
    ),
    "resume with a code outside": ("custom", {"resume": tts_lm_pb2.Resume(codes=[64] * 16)}, INVALID, "from 0 to 63"),
    "no voice on base": ("base", {}, INVALID, "cloned voices only"),
    "a name on base": ("base", {"voice": "ryan"}, INVALID, "cloned voices only"),
    "a short vector": (
        "base",
        {"voice_message": _clone(speaker_vector=[0.1])},
        INVALID,
        "1 numbers, this model's have 64",
    ),
    "a vector that is not finite": (
        "base",
        {"voice_message": _clone(speaker_vector=[float("inf")] * 64)},
        INVALID,
        "not finite",
    ),
    "clone codes of a wrong length": (
        "base",
        {"voice_message": _clone(speaker_vector=VECTOR, codes=[1] * 17, reference_text="a")},
        INVALID,
        "no multiple of the 16",
    ),
    "clone codes without their text": (
        "base",
        {"voice_message": _clone(speaker_vector=VECTOR, codes=[1] * 16)},
        INVALID,
        "clone.reference_text",
    ),
}


@pytest.mark.parametrize("name", BAD_STARTS)
async def test_a_bad_start_fails_alone_with_a_sentence(name: str, tiny: Path, tiny_base: Path) -> None:
    kind, fields, code, sentence = BAD_STARTS[name]
    async with serve(tiny if kind == "custom" else tiny_base) as talker:
        good = {} if kind == "custom" else {"voice_message": _clone(speaker_vector=VECTOR)}
        text = "Good morning."
        beside = asyncio.ensure_future(talker.say(text, **good))
        stream = talker.stream()
        await stream.send(start(**fields))
        refused = await stream.hear()
        assert (refused.reason, refused.ended.error.code) == ("FAILED", code)
        assert sentence in refused.ended.error.message
        # The stream lives on, and nobody else was disturbed.
        await stream.send(start(utterance=1, **good), words("Yes.", utterance=1), flush(utterance=1))
        assert (await stream.hear(utterance=1)).codes
        assert (await beside).codes == (await talker.say(text, **good)).codes
        assert talker.engine.info().free_slot_count == 2
        stream.end()


@pytest.mark.parametrize(
    ("deltas", "sentence"),
    [
        ([[10_000_000]], "is not ordinary text"),
        ([[-1]], "is not ordinary text"),
        ([[668]], "is not ordinary text"),  # tts_pad
        (["Hello ", [5]], "never both"),
        ([[5], "Hello"], "never both"),
        (["x" * 70_000], "too long"),
    ],
)
async def test_bad_text_fails_its_utterance_alone(talker: Client, deltas: list[object], sentence: str) -> None:
    stream = talker.stream()
    await stream.send(start(), *(words(delta) for delta in deltas))  # type: ignore[arg-type]
    failed = await stream.hear()
    assert failed.reason == "FAILED"
    assert sentence in failed.ended.error.message
    await eventually(lambda: talker.engine.info().free_slot_count == 2)
    await stream.send(start(utterance=1), words("Yes.", utterance=1), flush(utterance=1))
    assert (await stream.hear(utterance=1)).codes
    stream.end()


async def test_the_model_and_its_voices_are_told(talker: Client) -> None:
    model = await talker.stub.GetModel(tts_lm_pb2.GetModelRequest())
    assert (model.model_type, model.codebook_count, model.codebook_size) == ("custom_voice", 16, 64)
    assert (model.frame_rate_hz, model.samples_per_frame, model.sample_rate_hz) == (12.5, 1920, 24000)
    assert (model.slot_count, model.free_slot_count, model.dtype, model.device) == (2, 2, "float32", "cpu")
    assert len(model.tokenizer_fingerprint) == 64
    assert "english" in model.languages
    assert not any("dialect" in name for name in model.languages)
    voices = (await talker.stub.ListVoices(tts_lm_pb2.ListVoicesRequest())).voices
    assert {(v.name, v.dialect) for v in voices} >= {("ryan", ""), ("eric", "sichuan_dialect")}
