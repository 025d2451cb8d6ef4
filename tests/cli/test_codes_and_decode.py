"""`codes`, `decode` and `voices` against fake engines behind the real edges: what a person sees, exit codes, pipes."""

import asyncio
import json
import signal
import socket

import numpy as np
import pytest
import soundfile

from tests.cli.commands import started, voicemesh
from tests.edges import serving
from tests.fakes import ToneTtsLm, speak, text_of, tone


def parse(out):
    *frames, last = [json.loads(line) for line in out.splitlines()]
    return frames, last["ended"]


def as_lines(frames):
    return "".join(json.dumps({"frame": i, "codes": frame}) + "\n" for i, frame in enumerate(frames)).encode()


@pytest.fixture
async def tts_lm():
    async with serving("tts_lm") as server:
        yield server.address


@pytest.fixture
async def codec():
    async with serving("codec") as server:
        yield server.address


async def test_codes_prints_every_frame_and_then_the_end(tts_lm):
    done = await voicemesh("codes", "Hello, 世界.", "--seed", "7", "--tts-lm", tts_lm)
    frames, ended = parse(done.out)
    assert done.code == 0
    assert [tuple(frame["codes"]) for frame in frames] == speak("Hello, 世界.", seed=7)
    assert [frame["frame"] for frame in frames] == list(range(len(frames)))
    assert frames[-1]["text_tokens"] == len("Hello, 世界.")
    assert ended == {"reason": "COMPLETED", "text_tokens": 10, "frames": len(frames), "seed": 7}


async def test_text_on_standard_input_is_spoken_as_it_comes(tts_lm):
    async with started("codes", "-", "--tts-lm", tts_lm) as process:
        process.stdin.write(b"He" + "世".encode()[:1])
        await process.stdin.drain()
        first = json.loads(await asyncio.wait_for(process.stdout.readline(), 15))
        assert first["frame"] == 0  # long before the text has ended
        process.stdin.write("世".encode()[1:] + b"!")
        process.stdin.close()
        rest = await process.stdout.read()
        assert await process.wait() == 0
    frames, _ = parse(rest)
    assert text_of([first["codes"], *(frame["codes"] for frame in frames)]) == "He世!"


async def test_standard_input_may_be_a_file_or_nothing(tts_lm, tmp_path):
    empty = await voicemesh("codes", "--tts-lm", tts_lm)
    assert (empty.code, parse(empty.out)[0], parse(empty.out)[1]["reason"]) == (0, [], "COMPLETED")
    (tmp_path / "text").write_text("Hi")
    with (tmp_path / "text").open() as text:
        async with started("codes", "-", "--tts-lm", tts_lm, stdin=text) as process:
            out, _ = await process.communicate()
    assert text_of([frame["codes"] for frame in parse(out)[0]]) == "Hi"


async def test_a_limit_is_told_and_is_no_failure(tts_lm):
    done = await voicemesh("codes", "Hello", "--max-frames", "3", "--tts-lm", tts_lm)
    frames, ended = parse(done.out)
    assert (done.code, len(frames), ended["reason"]) == (0, 3, "LENGTH")


async def test_a_fault_of_the_utterance_is_told_and_fails(tts_lm):
    done = await voicemesh("codes", "Hello", "--voice", "nobody", "--tts-lm", tts_lm)
    assert done.code == 1
    ended = json.loads(done.out)["ended"]
    assert ended["reason"] == "FAILED"
    assert "nobody" in ended["error"]


async def test_every_flag_of_an_utterance_reaches_the_service():
    requests = []

    class Listening(ToneTtsLm):
        def submit(self, request):
            requests.append(request)
            return super().submit(request)

    async with serving("tts_lm", Listening()) as server:
        flags = "--voice bell --language german --instruct softly --greedy --layout whole --max-frames 9 --reference"
        done = await voicemesh(
            "codes", "x", *flags.split(), "--seed", "18446744073709551615", "--tts-lm", server.address
        )
    assert done.code == 0, done.errors
    (request,) = requests
    assert (request.voice, request.language, request.instruct) == ("bell", "german", "softly")
    assert (request.layout, request.max_frames, request.reference_behaviour) == ("whole", 9, True)
    assert (request.sampling.greedy, request.sampling.seed) == (True, 2**64 - 1)


async def test_an_interrupt_hangs_up():
    engine = ToneTtsLm(slot_count=1, step_s=0.05)
    async with serving("tts_lm", engine) as server:
        async with started("codes", "x" * 500, "--tts-lm", server.address) as process:
            await asyncio.wait_for(process.stdout.readline(), 15)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 1
            assert b"Traceback" not in await process.stderr.read()
        again = await voicemesh("codes", "Hi", "--tts-lm", server.address)  # the one slot is free again
        assert parse(again.out)[1]["reason"] == "COMPLETED"


async def test_a_reader_that_leaves_is_no_error_of_ours(tts_lm):
    async with started("codes", "x" * 5000, "--tts-lm", tts_lm) as process:
        await process.stdout.readline()
        process.stdout._transport.close()
        assert await asyncio.wait_for(process.wait(), 15) == 1
        assert await process.stderr.read() == b""


async def test_nobody_there_is_a_sentence_with_the_remedy():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        done = await voicemesh("voices", "--tts-lm", address)
    assert done.code == 1
    assert f"no tts_lm answers at {address}" in done.errors
    assert "voicemesh serve" in done.errors


async def test_a_dead_replica_is_passed_over(tts_lm):
    done = await voicemesh("codes", "Hi", "--tts-lm", f"127.0.0.1:1,{tts_lm}")
    assert parse(done.out)[1]["reason"] == "COMPLETED"


async def test_voices_lists_what_the_model_offers(tts_lm):
    done = await voicemesh("voices", "--json", "--tts-lm", tts_lm)
    facts = json.loads(done.out)
    assert [voice["name"] for voice in facts["voices"]] == ["tone", "bell"]
    assert facts["languages"] == ["english", "chinese", "german"]
    plain = await voicemesh("voices", "--tts-lm", tts_lm)
    assert plain.out.decode().splitlines()[0].startswith("tone")


async def test_codes_piped_into_decode_become_a_file(tts_lm, codec, tmp_path):
    frames = await voicemesh("codes", "Hello.", "--seed", "3", "--tts-lm", tts_lm)
    out = tmp_path / "hello.wav"
    done = await voicemesh("decode", "-", "--out", str(out), "--codec", codec, stdin=frames.out)
    assert done.code == 0, done.errors
    samples, rate = soundfile.read(out, dtype="int16")
    expected, _ = tone(speak("Hello.", seed=3))
    assert rate == 24000
    assert np.array_equal(samples, expected)
    assert f"{len(expected) / 24000:g} s" in done.out.decode()


@pytest.mark.parametrize("packet", ["1", "3", "100"])
async def test_the_packet_size_changes_no_sample(codec, tmp_path, packet):
    frames = speak("Packets.")
    (tmp_path / "frames").write_bytes(as_lines(frames))
    done = await voicemesh("decode", str(tmp_path / "frames"), "--packet", packet, "--codec", codec)
    assert done.code == 0, done.errors
    assert np.array_equal(np.frombuffer(done.out, "<i2"), tone(frames)[0])


async def test_floats_are_a_float_file_and_json_says_what_was_decoded(codec, tmp_path):
    out = tmp_path / "a.wav"
    flags = ["--out", str(out), "--format", "f32", "--json", "--codec", codec]
    done = await voicemesh("decode", "-", *flags, stdin=as_lines(speak("Hi")))
    facts = json.loads(done.out)
    assert soundfile.info(out).subtype == "FLOAT"
    assert facts["samples"] == soundfile.info(out).frames == 1920 * facts["frames"]
    assert facts["audio_s"] == facts["samples"] / 24000
    assert facts["first_packet_ms"] > 0
    assert facts["rtf"] > 0


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (b"", "the input is empty"),
        (b"hello\n", "line 1 is no frame"),
        (b'{"frame": 0}\n', "line 1 is no frame"),
        (b'{"codes": [1, 2]}\n', "line 1 has 2 codes; this codec takes 16"),
        (b'\n{"codes": 5}\n', "line 2 is no frame"),
        (b'{"ended": {"reason": "FAILED", "error": "no slot"}}\n', "the frames end in a failure: no slot"),
        (as_lines([(99999,) * 16]), "codec ended with FAILED"),
    ],
)
async def test_what_is_no_frame_is_told_in_a_sentence(codec, tmp_path, stdin, words):
    done = await voicemesh("decode", "-", "--out", str(tmp_path / "a.wav"), "--codec", codec, stdin=stdin)
    assert done.code == 1
    assert words in done.errors


async def test_no_frames_of_an_utterance_without_text_are_an_empty_file(codec, tmp_path):
    out = tmp_path / "a.wav"
    ended = b'{"ended": {"reason": "COMPLETED", "text_tokens": 0, "frames": 0}}\n'
    done = await voicemesh("decode", "-", "--out", str(out), "--codec", codec, stdin=ended)
    assert done.code == 0, done.errors
    assert soundfile.info(out).frames == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["codes", "x", "--tts-lm", "localhost"],
        ["codes", "x", "--ref-text", "y"],
        ["codes", "x", "--ref-audio", "y.wav", "--voice", "z"],
        ["codes", "x", "--seed", "-1"],
        ["codes", "x", "--max-frames", "0"],
        ["decode", "-", "--json"],
        ["decode", "-", "--packet", "0"],
        ["decode"],
        ["nonsense"],
        [],
    ],
)
async def test_wrong_use_is_exit_code_two(arguments):
    done = await voicemesh(*arguments)
    assert done.code == 2
    assert done.errors


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), (b"RIFFxxxx", "cannot be read")])
async def test_a_recording_that_cannot_be_read_is_a_sentence(tmp_path, content, words):
    path = tmp_path / "voice.wav"
    if content is not None:
        path.write_bytes(content)
    done = await voicemesh("codes", "x", "--ref-audio", str(path))
    assert done.code == 1
    assert words in done.errors


@pytest.mark.parametrize(("flags", "text"), [(["--ref-text", "what I said"], "what I said"), ([], "")])
async def test_a_recording_becomes_a_cloned_voice(codec, tmp_path, flags, text):
    requests = []

    class Listening(ToneTtsLm):
        def submit(self, request):
            requests.append(request)
            return super().submit(request)

    recording = tmp_path / "voice.wav"
    soundfile.write(recording, np.zeros((16000 * 2, 2)), 16000)
    async with serving("tts_lm", Listening()) as server:
        addresses = ["--codec", codec, "--tts-lm", server.address]
        done = await voicemesh("codes", "x", "--ref-audio", str(recording), *flags, *addresses)
    assert done.code == 0, done.errors
    voice = requests[0].voice
    assert voice.speaker_vector == (0.5,) * 4
    assert voice.reference_text == text
    assert bool(voice.codes) is bool(text)  # without its text a recording gives its timbre alone
