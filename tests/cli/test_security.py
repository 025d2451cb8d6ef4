"""Commands against services that want TLS, certificates and keys."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cli.addresses import target
from cli.errors import UsageError
from cli.security import Security
from tests.cli.commands import voicemesh
from tests.edges import gateway, serving
from tests.fakes import ScriptedBrain, speak, tone
from tests.gateway.access.tokens import Authority

KEY = "a-long-and-random-key-of-ada"
FRAMES = tone(speak("Hi.", seed=5))[0]


@dataclass
class Guarded:
    """A gateway with TLS and keys, over stages that ask for certificates."""

    gateway: str
    tts_lm: str
    codec: str
    trusting: tuple[str, ...]  # flags
    known: tuple[str, ...]  # flags of who has a certificate too
    key_file: Path


@asynccontextmanager
async def guarded(directory: Path) -> AsyncIterator[Guarded]:
    authority = Authority(directory)
    mine = authority.signed("me")

    def served(name: str, **more: Any) -> dict[str, Any]:
        pair = authority.signed(name)
        return {"tls_certificate_file": pair.certificate, "tls_key_file": pair.key, **more}

    key_file = directory / "key"
    key_file.write_text(f"{KEY}\n")
    trusting = ("--tls-ca-file", str(authority.file), "--tls-name", "localhost")
    known = (*trusting, "--tls-certificate-file", str(mine.certificate), "--tls-key-file", str(mine.key))
    shown = {"stage_certificate_file": mine.certificate, "stage_key_file": mine.key, "stage_name": "localhost"}
    async with (
        serving("tts_lm", **served("tts_lm", tls_client_ca_file=authority.file)) as talker,
        serving("codec", **served("codec", tls_client_ca_file=authority.file)) as codec,
        serving("brain", ScriptedBrain(), **served("brain", tls_client_ca_file=authority.file)) as brain,
        gateway(
            tts_lm_address=talker.address,
            codec_address=codec.address,
            brain_address=brain.address,
            stage_ca_file=authority.file,
            api_keys=f"ada={KEY}",
            **shown,
            **served("gateway"),
        ) as server,
    ):
        yield Guarded(server.address, talker.address, codec.address, trusting, known, key_file)


async def test_say_and_chat_show_their_key_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(tmp_path) as mesh:
        out = tmp_path / "a.wav"
        flags = ("--gateway", mesh.gateway, *mesh.trusting)
        done = await voicemesh(
            "say", "Hi.", "--seed", "5", "--out", str(out), *flags, "--api-key-file", str(mesh.key_file)
        )
        assert done.code == 0, done.errors
        assert np.array_equal(soundfile.read(out, dtype="int16")[0], FRAMES)
        monkeypatch.setenv("VOICEMESH_API_KEY", KEY)
        done = await voicemesh("chat", "Hi there", "--json", *flags)
        assert done.code == 0, done.errors
        assert json.loads(done.out.splitlines()[-1])["answer"] == "Hi there "


async def test_codes_and_decode_show_a_certificate(tmp_path: Path) -> None:
    async with guarded(tmp_path) as mesh:
        done = await voicemesh("codes", "Hi.", "--seed", "5", "--tts-lm", mesh.tts_lm, *mesh.known)
        assert done.code == 0, done.errors
        out = tmp_path / "a.wav"
        decoded = await voicemesh("decode", "-", "--out", str(out), "--codec", mesh.codec, *mesh.known, stdin=done.out)
        assert decoded.code == 0, decoded.errors
        assert np.array_equal(soundfile.read(out, dtype="int16")[0], FRAMES)


async def test_whoever_shows_nothing_is_told_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOICEMESH_API_KEY", raising=False)
    async with guarded(tmp_path) as mesh:
        out = ("--out", str(tmp_path / "a.wav"))
        plain = await voicemesh("say", "Hi.", *out, "--gateway", mesh.gateway)
        assert (plain.code, "--tls-ca-file" in plain.errors) == (1, True)
        keyless = await voicemesh("say", "Hi.", *out, "--gateway", mesh.gateway, *mesh.trusting)
        assert (keyless.code, "key" in keyless.errors) == (1, True)
        unknown = await voicemesh("codes", "Hi.", "--tts-lm", mesh.tts_lm, *mesh.trusting)
        assert unknown.code == 1
        strangers = Authority(tmp_path, "strangers")
        doubted = await voicemesh("say", "Hi.", *out, "--gateway", mesh.gateway, "--tls-ca-file", str(strangers.file))
        assert (doubted.code, "authority" in doubted.errors) == (1, True)


def asked(**flags: Any) -> Namespace:
    return Namespace(**flags)


def test_a_key_never_leaves_this_machine_in_the_clear(tmp_path: Path) -> None:
    held = {"VOICEMESH_API_KEY": KEY}
    with pytest.raises(UsageError, match="in the clear"):
        target(asked(gateway_address="voice.example:50050"), "gateway", held)
    assert target(asked(gateway_address="127.0.0.1:50050"), "gateway", held).security.key == KEY
    assert target(asked(gateway_address="voice.example:50050", tls=True), "gateway", held).security.tls


def test_stages_are_not_shown_the_key() -> None:
    assert target(asked(), "codec", {"VOICEMESH_API_KEY": KEY}).security == Security()


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        target(asked(tls_ca_file=str(tmp_path / "nothing")), "gateway", {})
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(UsageError, match="together"):
        target(asked(tls_certificate_file=str(tmp_path / "x")), "gateway", {})
    (tmp_path / "key").write_bytes(b"\xff\x00")
    with pytest.raises(UsageError, match="no key holds"):
        target(asked(api_key_file=str(tmp_path / "key")), "gateway", {})


def test_a_key_is_in_no_representation() -> None:
    assert KEY not in repr(Security(key=KEY, private_key=KEY.encode()))
