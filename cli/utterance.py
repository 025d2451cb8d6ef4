"""The flags that describe an utterance, the same for every command that speaks, and the `GenerateStart` they mean."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from cli.errors import UsageError

if TYPE_CHECKING:
    from voicemesh.tts_lm.v1 import tts_lm_pb2


def add_utterance_flags(parser: argparse.ArgumentParser) -> None:
    """TEXT and everything that says how it is spoken."""
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what to say; - or none: standard input, as it comes")
    parser.add_argument("--voice", help="a name from `voicemesh voices` (default: the model's first)")
    parser.add_argument("--language", default="auto", help="a language of the model, or auto (default)")
    parser.add_argument("--instruct", default="", metavar="TEXT", help="how to say it, or for voice design whose voice")
    parser.add_argument("--seed", type=_seed, help="repeats an utterance exactly (default: drawn, and reported)")
    parser.add_argument("--greedy", action="store_true", help="always the most likely code, in both models")
    parser.add_argument("--layout", choices=("streaming", "whole"), default="streaming", help="default: streaming")
    parser.add_argument("--max-frames", type=_positive, metavar="N", help="deliver at most N frames of 80 ms")
    parser.add_argument("--reference", action="store_true", help="as the reference implementation: no guards")
    parser.add_argument("--ref-audio", metavar="FILE", help="clone the voice in this recording (base models)")
    parser.add_argument("--ref-text", metavar="TEXT", help="what is said in --ref-audio; clones its manner too")


def text_source(args: argparse.Namespace) -> str:
    """The text, or `-` for standard input; a terminal is asked for text only when `-` says so."""
    if args.text is None and sys.stdin.isatty():
        raise UsageError("there is nothing to say: give TEXT, or - to type it")
    return "-" if args.text is None else str(args.text)


def check(args: argparse.Namespace) -> None:
    """UsageError for flags that contradict one another."""
    if args.ref_text and not args.ref_audio:
        raise UsageError("--ref-text needs the recording it belongs to: --ref-audio FILE")
    if args.ref_audio and args.voice:
        raise UsageError("--voice and --ref-audio both name a voice: give one")


def generate_start(args: argparse.Namespace, clone: tts_lm_pb2.Clone | None) -> tts_lm_pb2.GenerateStart:
    """The message that begins the utterance."""
    from voicemesh.tts_lm.v1 import tts_lm_pb2

    layouts = {"streaming": tts_lm_pb2.TEXT_LAYOUT_STREAMING, "whole": tts_lm_pb2.TEXT_LAYOUT_WHOLE}
    start = tts_lm_pb2.GenerateStart(
        language=args.language,
        instruct=args.instruct,
        text_layout=layouts[args.layout],
        sampling=tts_lm_pb2.Sampling(seed=args.seed, greedy=args.greedy),
        max_frames=args.max_frames or 0,
        reference_behaviour=args.reference,
    )
    if clone is not None:
        start.voice.clone.CopyFrom(clone)
    elif args.voice:
        start.voice.name = args.voice
    return start


async def clone_from_recording(args: argparse.Namespace) -> tts_lm_pb2.Clone | None:
    """Encode --ref-audio with the codec; with --ref-text its codes are kept, else the speaker vector alone."""
    if not args.ref_audio:
        return None
    from voicemesh.tts_lm.v1 import tts_lm_pb2

    from cli.addresses import target
    from cli.recording import encode

    encoded = await encode(args.ref_audio, target(args, "codec"))
    codes = encoded.codes if args.ref_text else ()
    return tts_lm_pb2.Clone(speaker_vector=encoded.speaker_vector, codes=codes, reference_text=args.ref_text or "")


def ended_facts(ended: Any) -> dict[str, Any]:
    """An `Ended` message as JSON: reason without its prefix, counts, and the sentence of a fault."""
    from voicemesh.stream.v1 import stream_pb2

    reason = stream_pb2.FinishReason.Name(ended.reason).removeprefix("FINISH_REASON_")
    facts = {"reason": reason, "text_tokens": ended.text_token_count, "frames": ended.frame_count}
    return facts | ({"error": ended.error.message} if ended.HasField("error") else {})


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError("a seed is a whole number from 0 to 2^64 - 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
