"""What mini promises, asked of a running mesh: `python -m tools.mini_voice.promises --gateway HOST:PORT`.

understood  held-out sentences, given token by token and all at once: recognised, beside the synthesiser; cepstral
            distance to it and words skipped or repeated, by time alignment with it, sentence by sentence; whether both
            ways sound the same to the last bits; first packet and real-time factor, one answer at a time
at once     four answers at a time on a playback clock
paragraphs  of a minute and more, each one answer: its end, its length, the share of words skipped or repeated

Refuses to know the model: everything goes through `SpeechService.Synthesize`. Needs the `train` extra and espeak-ng.
That a thousand sentences end is the talker's affair alone: `ends.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from bench.playback import Packet, play
from bench.report import Report
from tools.mini_voice import features
from tools.mini_voice.lexicon import installed_lexicon
from tools.mini_voice.met import met
from tools.mini_voice.recognise import Identifier
from tools.mini_voice.speech_data import padded
from tools.mini_voice.synthesiser import SAMPLE_RATE_HZ, synthesiser
from tools.mini_voice.text import Writer, evaluation_sentences
from tools.mini_voice.voices import VOICES

PREBUFFER_S = 0.1
TOKEN_S = 0.02
"""Between two tokens: fifty a second, as a brain on a GPU writes."""
SEED = 0
PARAGRAPH_SEED = 31337
PARAGRAPH_S = 60.0
_WORDS_A_MINUTE = 140
Stub: Any = gateway_pb2_grpc.SpeechServiceStub


@dataclass(frozen=True)
class Answer:
    """One utterance as it was heard."""

    packets: tuple[Packet, ...]
    reason: str

    @property
    def samples(self) -> features.Array:
        pcm = b"".join(packet.pcm for packet in self.packets)
        return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


async def ask(channel: grpc.aio.Channel, text: str, voice: str, *, by_token: bool) -> Answer:
    """Speak `text`, given at once or in pieces like a language model's. Packets are timed from the first text."""
    call = Stub(channel).Synthesize()
    request = gateway_pb2.SynthesizeRequest(start=gateway_pb2.SynthesizeStart())
    speech = request.start.speech
    speech.voice.name, speech.language, speech.sampling.seed = voice, "english", SEED
    await call.write(request)
    pieces = tokens(text) if by_token else [text]
    began_s, packets, reason = time.perf_counter(), [], "LOST"

    async def tell() -> None:
        for piece in pieces:
            await call.write(gateway_pb2.SynthesizeRequest(text=piece))
            if by_token:
                await asyncio.sleep(TOKEN_S)
        await call.write(gateway_pb2.SynthesizeRequest(flush=stream_pb2.Flush()))
        await call.done_writing()

    async with asyncio.TaskGroup() as group:
        group.create_task(tell())
        while (response := await call.read()) is not grpc.aio.EOF:
            if response.HasField("audio"):
                packets.append(Packet(time.perf_counter() - began_s, response.audio.payload))
            elif response.HasField("ended"):
                reason = stream_pb2.FinishReason.Name(response.ended.reason).removeprefix("FINISH_REASON_")
    return Answer(tuple(packets), reason)


def tokens(text: str) -> list[str]:
    """Pieces as language models send them: a space goes with what follows it, a long word comes in parts."""
    return re.findall(r"\s?\S{1,4}", text)


async def ask_all(
    channel: grpc.aio.Channel, texts: Sequence[str], voices: Sequence[str], *, at_once: int, by_token: bool = True
) -> list[Answer]:
    """Every text, so many at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(text: str, voice: str) -> Answer:
        async with gate:
            return await ask(channel, text, voice, by_token=by_token)

    return list(await asyncio.gather(*map(one, texts, voices)))


async def understood(report: Report, channel: grpc.aio.Channel, count: int) -> None:
    """The held-out sentences in every voice, both ways of giving the text, beside the synthesiser's own."""
    sentences = evaluation_sentences(count)
    identifier = Identifier(sentences)
    for voice in VOICES:
        teacher = [synthesiser().speak(sentence, voice) for sentence in sentences]
        spoken = [padded(speech) for speech in teacher]
        report.value("understood", _right(identifier, spoken), voice=voice.name, source="synthesiser")
        heard = {}
        for source, by_token in (("token by token", True), ("all at once", False)):
            where = {"voice": voice.name, "source": source}
            answers = await ask_all(channel, sentences, [voice.name] * count, at_once=1, by_token=by_token)
            sounds = heard[source] = [answer.samples for answer in answers]
            report.value("understood", _right(identifier, sounds), **where)
            report.value("ended_by_itself", sum(answer.reason == "COMPLETED" for answer in answers), **where)
            faults = [met(*each) for each in zip(teacher, spoken, sounds, strict=True)]
            report.add("distance_db", [each.distance_db for each in faults], **where)
            report.value("no_word_skipped_or_repeated", sum(each.whole for each in faults), **where)
            for sentence, each in zip(sentences, faults, strict=True):
                report.value(
                    "sentence_distance_db",
                    round(each.distance_db, 3),
                    **where,
                    sentence=sentence,
                    skipped=each.skipped,
                    repeated=each.repeated,
                )
            _tell_time(report, answers, **where)
        report.value("same_either_way", sum(map(_same, *heard.values())), voice=voice.name)


async def at_once(report: Report, channel: grpc.aio.Channel, count: int) -> None:
    """Four answers at a time: nobody's playback may run dry."""
    sentences = evaluation_sentences(count)
    voices = [VOICES[i % len(VOICES)].name for i in range(count)]
    _tell_time(report, await ask_all(channel, sentences, voices, at_once=4), source="four at once")


async def paragraphs(report: Report, channel: grpc.aio.Channel, count: int) -> None:
    """Each as one answer."""
    texts = paragraph_texts(count)
    voices = [VOICES[i % len(VOICES)] for i in range(count)]
    answers = await ask_all(channel, texts, [voice.name for voice in voices], at_once=2)
    report.value("paragraphs", count, source="paragraphs")
    report.value("ended_by_itself", sum(answer.reason == "COMPLETED" for answer in answers), source="paragraphs")
    report.add("audio_s", [len(answer.samples) / SAMPLE_RATE_HZ for answer in answers], source="paragraphs")
    taught = [synthesiser().speak(text, voice) for text, voice in zip(texts, voices, strict=True)]
    ratios = [len(a.samples) / len(padded(teacher)) for teacher, a in zip(taught, answers, strict=True)]
    report.add("length_ratio", ratios, source="paragraphs")
    faults = [met(teacher, padded(teacher), a.samples) for teacher, a in zip(taught, answers, strict=True)]
    report.add("words_wrong_share", [(f.skipped + f.repeated) / f.total for f in faults], source="paragraphs")
    report.add("distance_db", [each.distance_db for each in faults], source="paragraphs")


def paragraph_texts(count: int) -> list[str]:
    """Each a minute and more at the synthesiser's pace."""
    writer, found = Writer(PARAGRAPH_SEED, installed_lexicon()), []
    for _ in range(count):
        sentences: list[str] = []
        while sum(len(sentence.split()) for sentence in sentences) < 1.1 * _WORDS_A_MINUTE * PARAGRAPH_S / 60:
            sentence = writer.pattern()
            if not any(character.isdigit() for character in sentence):
                sentences.append(sentence)
        found.append(" ".join(sentences))
    return found


def _tell_time(report: Report, answers: Iterable[Answer], **where: str) -> None:
    heard = [play(answer.packets, SAMPLE_RATE_HZ, PREBUFFER_S) for answer in answers if answer.packets]
    report.add("first_packet_s", [each.first_byte_s for each in heard], **where)
    report.add("rtf", [each.rtf for each in heard], **where)
    report.value("underruns", sum(each.underruns for each in heard), **where)


def _same(a: features.Array, b: features.Array) -> bool:
    """To the last bits of a sample, which depend on how many frames the codec was given at a time."""
    return len(a) == len(b) and bool(np.abs(a - b).max(initial=0) < 1e-3)


def _right(identifier: Identifier, sounds: Sequence[features.Array]) -> int:
    return sum(identifier.identify(sound, SAMPLE_RATE_HZ) == index for index, sound in enumerate(sounds))


PARTS = {"understood": understood, "at once": at_once, "paragraphs": paragraphs}
COUNTS = {"understood": 100, "at once": 40, "paragraphs": 20}


async def _run(arguments: argparse.Namespace) -> None:
    report = Report("mini", {"prebuffer_s": PREBUFFER_S, "seed": SEED, "share": arguments.share})
    async with grpc.aio.insecure_channel(arguments.gateway) as channel:
        await ask(channel, "One before the first.", VOICES[0].name, by_token=False)
        for part in arguments.part or PARTS:
            await PARTS[part](report, channel, max(1, round(COUNTS[part] * arguments.share)))
            print(f"{part} is done", flush=True)
    print(report.write())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tools.mini_voice.promises", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gateway", default="127.0.0.1:50050")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be given again")
    parser.add_argument("--share", type=float, default=1.0, help="of the sentences (default: all)")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
