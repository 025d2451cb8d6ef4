"""`voicemesh voices`: the voices that tts_lm serves; `voices add` keeps another one, made from a recording."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import Any

from cli.addresses import add_address_flags, target
from cli.errors import CommandError

STORE_VARIABLE = "VOICEMESH_TTS_LM_VOICE_STORE"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("voices", help="the voices and languages of the model that is served")
    add_address_flags(parser)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run_voices)
    add = parser.add_subparsers(metavar="add").add_parser("add", help="keep a voice cloned from a recording")
    add_address_flags(add)
    add.add_argument("name", metavar="NAME", help="what to call it; a name used before means the new voice from now on")
    add.add_argument("--ref-audio", metavar="FILE", required=True, help="a few seconds of one person speaking")
    add.add_argument("--ref-text", metavar="TEXT", default="", help="what is said there; clones the manner too")
    add.add_argument("--store", metavar="DIR", help=f"where to keep it (default ${STORE_VARIABLE}, else the user's)")
    add.add_argument("--json", action="store_true")
    add.set_defaults(run=run_add)


def run_add(args: argparse.Namespace) -> int:
    from cli.recording import encode
    from common.errors import MeshError
    from common.voice_store import VoiceStore, checked_name, default_directory

    directory = args.store or os.environ.get(STORE_VARIABLE) or str(default_directory())
    try:
        name = checked_name(args.name)
        encoded = asyncio.run(encode(args.ref_audio, target(args, "codec")))
        if not encoded.speaker_vector:
            raise CommandError("this codec's checkpoint has no speaker encoder: only base models clone voices")
        flat = list(encoded.codes) if args.ref_text else []
        width = len(encoded.codes) // encoded.frame_count
        frames = [flat[begin : begin + width] for begin in range(0, len(flat), width)]
        voice = VoiceStore(directory).add(name, encoded.speaker_vector, frames, args.ref_text)
    except (MeshError, OSError) as error:
        raise CommandError(f"the voice was not kept: {error}") from error
    facts = {"name": voice.name, "voice_id": voice.voice_id, "frames": len(voice.codes), "store": directory}
    print(json.dumps(facts, ensure_ascii=False) if args.json else f"{voice.name} is kept in {directory}.")
    return 0


def run_voices(args: argparse.Namespace) -> int:
    facts = asyncio.run(_facts(args))
    print(json.dumps(facts, ensure_ascii=False) if args.json else "\n".join(_sentences(facts)))
    return 0


async def _facts(args: argparse.Namespace) -> dict[str, Any]:
    from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

    from cli.clients import connected, stub, unary

    async with connected(target(args, "tts_lm")) as channel:
        tts_lm = stub(tts_lm_pb2_grpc.TtsLmServiceStub, channel)
        model = await unary(tts_lm.GetModel(tts_lm_pb2.GetModelRequest()))
        listed = await unary(tts_lm.ListVoices(tts_lm_pb2.ListVoicesRequest()))
    fields = ("name", "language", "dialect", "description")
    return {
        "model": model.model_id,
        "model_type": model.model_type,
        "voices": [{field: getattr(voice, field) for field in fields} for voice in listed.voices],
        "languages": list(model.languages),
        "supports_instruct": model.supports_instruct,
        "supports_clone": model.supports_clone,
    }


def _sentences(facts: dict[str, Any]) -> list[str]:
    """One voice a line, then what else the model can do."""
    out = []
    for voice in facts["voices"]:
        about = ", ".join(voice[field] for field in ("language", "dialect", "description") if voice[field])
        out.append(f"{voice['name']}  ({about})" if about else voice["name"])
    if facts["supports_clone"]:
        out.append("This model clones: give --ref-audio FILE, and --ref-text for the manner of speaking too.")
    elif not out:
        out.append("This model has no named voices: describe one with --instruct.")
    out.append(f"Languages: {', '.join(facts['languages'])}, or auto.")
    return out
