"""`voicemesh voices`: the voices of the model that tts_lm serves, in its order."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from cli.addresses import add_address_flags, target


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("voices", help="the voices and languages of the model that is served")
    add_address_flags(parser)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run_voices)


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
