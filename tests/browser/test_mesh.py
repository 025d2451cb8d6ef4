"""All four services as `make run` starts them, and a person in a real browser: asks aloud, interrupts, is answered."""

from __future__ import annotations

import os
from pathlib import Path

import aiohttp
import pytest

from tests.browser.chromium import DESKTOP, Page, browser, found
from tests.browser.microphone import recorded, spoken
from tests.browser.test_page import SOUNDS, click, keep, send
from tests.mesh.processes import running_mesh

pytestmark = pytest.mark.timeout(240)
QUESTION = "What is twelve times seven?"
DONE = "voicemesh.journal.filter(e => e.event?.type === 'response.done').map(e => e.event.response)"


async def test_a_person_asks_aloud_interrupts_by_voice_and_by_button_and_is_answered(tmp_path: Path) -> None:
    found()  # before the services are started in vain
    with running_mesh(timeout_s=120) as mesh:
        address = mesh.ready["gateway"]["http"]
        question = await spoken(QUESTION, address)
        microphone = recorded(tmp_path, 0.5, question, 4.5)  # the browser plays it over and over
        async with browser(microphone) as page:
            await page.emulate(DESKTOP)
            await page.open(address)
            await _is_answered(page)
            await _is_cut_by_voice(page)
            await _is_cut_by_button(page)
            await _comes_back(page)
            await _stages_are_shown(page, address)
            await page.run("window.voicemesh?.call.hangUp()")
            assert page.complaints == []
            assert all(url.startswith((address, "blob:")) for url in page.requests)


async def _is_answered(page: Page) -> None:
    await click(page, "start")
    await page.until(f"{DONE}.some(response => response.status === 'completed')")
    await page.until("document.querySelector('.turn li .key-client')")
    assert await page.run(SOUNDS.format("sound")) >= 1
    said = await page.run("document.querySelector('li.you .text').textContent")
    answer = await page.run("document.querySelector('li.it .text').textContent")
    assert said
    if "twelve times seven" in said:  # the recogniser is as good as it is; an answer must fit what it understood
        assert "eighty" in answer
    await keep(page, "answered")


async def _is_cut_by_voice(page: Page) -> None:
    """The microphone asks its question again while the story is told."""
    before = await page.run(f"{DONE}.length")
    await send(page, "Tell me a long story")
    cut = f"{DONE}.slice({before}).find(response => response.status === 'cancelled')"
    await page.until(cut)
    assert await page.run(f"{cut}.status_details.reason") == "turn_detected"
    heard = "voicemesh.journal.filter(e => e.event?.type === 'conversation.item.truncated').at(-1).event.audio_end_ms"
    assert await page.run(heard) > 0
    await page.until("document.querySelector('li.it .cut')")
    await keep(page, "cut-by-voice")


async def _is_cut_by_button(page: Page) -> None:
    await click(page, "mute")
    await page.until("document.getElementById('state').dataset.state === 'listening'")
    stories = await page.run("document.querySelectorAll('li.it').length")
    await send(page, "Tell me a long story")
    await page.until(f"document.querySelectorAll('li.it').length > {stories}")
    await page.until("document.getElementById('state').dataset.state === 'speaking'")
    await page.until("Number(document.getElementById('level-it').value) > 0.1")
    silences = await page.run(SOUNDS.format("silence"))
    await click(page, "interrupt")
    await page.until(f"{SOUNDS.format('silence')} > {silences}")
    await page.until(f"{DONE}.at(-1).status_details.reason === 'client_cancelled'")


async def _comes_back(page: Page) -> None:
    """The channel breaks; the same session goes on over a new call."""
    sessions = "voicemesh.journal.filter(e => e.event?.type === 'session.created').map(e => e.event.session.id)"
    await page.run("voicemesh.call.channel.close()")
    await page.until("voicemesh.journal.some(e => e.kind === 'resumed')")
    before, after = await page.run(sessions)
    assert before == after
    ended = await page.run(f"{DONE}.length")
    await send(page, QUESTION)
    await page.until(f"{DONE}.slice({ended}).some(response => response.status === 'completed')")


async def _stages_are_shown(page: Page, address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/latency") as response:
        latency = await response.json()
    heard = [turn for turn in latency["turns"] if "client" in turn["stages_ms"]]
    assert heard
    for turn in heard:
        assert sum(turn["stages_ms"].values()) == pytest.approx(turn["milestones_ms"]["client_first_audible"], abs=1)
    if os.environ.get("VOICEMESH_SCREENSHOTS"):
        await page.go(f"{address}/latency")
        await page.until("document.querySelector('#turns .row')")
        await keep(page, "latency-of-the-mesh")
