"""`chat` as a process, over a real gateway and fake stages: by pipes as programs use it, at a terminal as people do."""

import asyncio
import json
import os
import pty

import numpy as np
import pytest
import soundfile

from common.errors import InvalidRequest
from tests.cli.commands import started, voicemesh
from tests.edges import gateway
from tests.fakes import Refusing, ScriptedBrain, ToneTtsLm, speak, tone
from tests.gateway.caller import until

STORY = [f"word{number} " for number in range(80)]


def answers(words):
    return STORY if "story" in words else [f"You said {words}."[:24]]


@pytest.fixture
async def address(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # no sound server, whatever machine this is
    async with gateway(brain=ScriptedBrain(answers)) as server:
        yield server.address


def facts(done):
    return [json.loads(line) for line in done.out.splitlines()]


async def test_one_question_is_answered_in_text_where_there_is_no_loudspeaker(address):
    done = await voicemesh("chat", "Hi", "--gateway", address)
    assert (done.code, done.out.decode()) == (0, "You said Hi.\n")
    assert "no sound device here: you read what you would hear" in done.errors


async def test_lines_of_a_pipe_are_asked_one_after_another(address, tmp_path):
    out = tmp_path / "a.wav"
    flags = ["--json", "--out", str(out), "--gateway", address]
    done = await voicemesh("chat", *flags, stdin=b"A\nB")
    assert done.code == 0, done.errors
    first, second = (fact for fact in facts(done) if fact["event"] == "answer")
    assert (first["turn"], first["question"], first["heard"]) == (1, "A", "You said A.")
    assert (second["turn"], second["question"], second["finish_reason"]) == (2, "B", "COMPLETED")
    stages = list(second["milestones_ms"].values())
    assert stages == sorted(stages)
    samples, rate = soundfile.read(out, dtype="int16")
    spoken = sum(tone(speak(f"You said {words}."))[0].size for words in "AB")
    assert rate == 24000
    assert abs(samples.size - spoken) <= 2 * 480 + 2 * 960  # of each the first silence is cut, the last block padded
    assert np.abs(samples).max() > 7000


async def test_enter_silences_an_answer_and_the_next_one_comes(address):
    async with started("chat", "--json", "--gateway", address) as process:
        process.stdin.write(b"tell me a story\n")
        assert json.loads(await process.stdout.readline()) == {"event": "speaking", "turn": 1}
        process.stdin.write(b"\n")
        cut = json.loads(await process.stdout.readline())
        assert (cut["finish_reason"], cut["answer"].startswith(cut["heard"])) == ("CANCELLED", True)
        assert len(cut["heard"]) < len("".join(STORY))
        process.stdin.write(b"C\n")
        process.stdin.write_eof()
        rest = [json.loads(line) for line in (await process.stdout.read()).splitlines()]
        assert (rest[-1]["question"], rest[-1]["finish_reason"]) == ("C", "COMPLETED")
        assert await process.wait() == 0


class Terminal:
    """A person's end of a pseudo terminal."""

    def __init__(self):
        self.mine, self.theirs = pty.openpty()
        self.seen = ""
        self._read_to = 0
        asyncio.get_running_loop().add_reader(self.mine, self._read)

    def _read(self):
        try:
            self.seen += os.read(self.mine, 65536).decode()
        except OSError:  # everybody has left
            asyncio.get_running_loop().remove_reader(self.mine)

    def type(self, text):
        os.write(self.mine, text.encode())

    async def shows(self, text):
        """Return when that stands behind what was waited for before."""
        await until(lambda: self.seen.find(text, self._read_to) >= 0)
        self._read_to = self.seen.index(text, self._read_to) + len(text)

    def close(self):
        asyncio.get_running_loop().remove_reader(self.mine)
        os.close(self.mine)
        os.close(self.theirs)


async def test_a_person_asks_interrupts_asks_on_and_leaves(address):
    terminal = Terminal()
    try:
        async with started("chat", "--gateway", address, stdin=terminal.theirs, stdout=terminal.theirs) as process:
            await terminal.shows("> ")
            terminal.type("a story\n")
            await terminal.shows("word3")
            terminal.type("\n")
            await terminal.shows("—\r\n> ")
            terminal.type("another story\n")
            await terminal.shows("another story\r\n")
            await terminal.shows("word3")
            terminal.type("Hi\n")  # asks on while it speaks
            await terminal.shows("—\r\nYou said Hi.\r\n> ")
            terminal.type("\4")
            assert await process.wait() == 0
    finally:
        terminal.close()


async def test_a_fault_is_told_and_the_exit_code_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mute = Refusing(ToneTtsLm(), InvalidRequest("This voice cannot say that."))
    async with gateway(brain=ScriptedBrain(answers), talker=mute) as server:
        plain = await voicemesh("chat", "Hi", "--gateway", server.address)
        as_json = await voicemesh("chat", "Hi", "--json", "--gateway", server.address)
    assert (plain.code, "This voice cannot say that." in plain.out.decode()) == (1, True)
    assert as_json.code == 1
    told = facts(as_json)[-1]
    assert (told["finish_reason"], told["error"]) == ("FAILED", "This voice cannot say that.")


async def test_without_a_gateway_it_says_how_to_start_one():
    done = await voicemesh("chat", "Hi", "--gateway", "127.0.0.1:1")
    assert (done.code, done.out) == (1, b"")
    assert "voicemesh serve" in done.errors
