"""The page in a real browser, over conversations that play a part (tests/browser/house.py) and real WebRTC."""

from __future__ import annotations

import os
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import DESKTOP, PHONE, Page, browser
from tests.browser.house import ANSWER, ActingSessions, house

pytestmark = pytest.mark.timeout(90)
SOUNDS = "voicemesh.journal.filter(e => e.kind === '{}' && e.who === 'it').length"


def silence(directory: Path) -> str:
    """The flag for a microphone in a silent room."""
    path = directory / "silence.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 48000)
    return f"--use-file-for-fake-audio-capture={path}"


@asynccontextmanager
async def opened(sessions: Any, *flags: str, key: str = "") -> AsyncIterator[tuple[Page, Any]]:
    async with house(sessions, key=key) as (address, sessions), browser(*flags) as page:
        await page.emulate(DESKTOP)
        await page.open(address)
        yield page, sessions
        assert [url for url in page.requests if not url.startswith((address, "blob:"))] == [], "an outside host"


async def send(page: Page, text: str) -> None:
    await page.run(f"document.getElementById('text').value = {text!r}")
    await page.run("document.getElementById('compose').requestSubmit()")


async def click(page: Page, name: str) -> None:
    await page.run(f"document.getElementById('{name}').click()")


async def keep(page: Page, name: str) -> None:
    """A screenshot where VOICEMESH_SCREENSHOTS names a folder."""
    folder = os.environ.get("VOICEMESH_SCREENSHOTS")
    if folder:
        (Path(folder) / f"{name}.png").write_bytes(await page.screenshot())


async def test_the_page_talks_is_interrupted_and_comes_back(tmp_path: Path) -> None:
    async with opened(ActingSessions(), silence(tmp_path)) as (page, sessions):
        await keep(page, "welcome")
        await page.until("document.querySelector('#voice option[value=ben]')")
        await page.run("document.getElementById('voice').value = 'ben'")
        await click(page, "start")
        await page.until("voicemesh.call.isOpen")
        (conversation,) = sessions.all
        assert conversation.settings.voice == "ben"

        await send(page, "What is twelve times seven?")
        await page.until("document.querySelector('.turn li .key-client')")  # what was heard has come back as a stage
        assert ("type", "What is twelve times seven?") in conversation.asked
        await page.until("document.getElementById('state').dataset.state === 'listening'")
        assert ANSWER in await page.run("document.getElementById('log').innerText")
        await page.until("document.getElementById('stat-received').textContent > 50")

        for count, silenced in ((2, "Escape"), (3, "interrupt")):
            await send(page, "Tell me a long story")
            await page.until(f"document.querySelectorAll('li.it').length === {count}")
            await page.until("document.querySelector('li.it:last-child .heard')?.textContent.length > 12")
            before = await page.run(SOUNDS.format("silence"))
            await (page.press(silenced) if silenced == "Escape" else click(page, silenced))
            await page.until(f"{SOUNDS.format('silence')} > {before}")
            await page.until("document.querySelector('li.it:last-child .cut')")
            unheard = await page.run("document.querySelector('li.it:last-child .unheard').textContent")
            assert unheard.endswith("ran backwards.")
        await keep(page, "interrupted")

        await conversation.transport.close("a cable is pulled")
        await page.until("voicemesh.journal.some(e => e.kind === 'resumed')")
        assert ("attach",) in conversation.asked
        await send(page, "And again?")
        await page.until("document.querySelector('li.it:last-child .turn')")

        await click(page, "start")
        await page.until("document.getElementById('state').textContent === 'not connected'")
        assert page.complaints == []


async def test_the_page_fits_desktop_and_phone_by_day_and_by_night(tmp_path: Path) -> None:
    async with opened(ActingSessions(), silence(tmp_path)) as (page, _):
        await send(page, "What is twelve times seven?")
        await page.until("document.querySelector('.turn li .key-client')")
        await page.run("document.querySelector('.turn').open = true")
        for path in ("", "latency"):
            if path:
                await page.go(await page.run("location.origin + '/latency'"))
                await page.until("document.querySelector('#turns .row')")
            for name, device in (("desktop", DESKTOP), ("phone", PHONE)):
                for dark in (False, True):
                    await page.emulate(device, dark=dark)
                    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                    assert await page.run(wide) == 0, f"{path} is wider than the {name}"
                    await keep(page, f"{path or 'talk'}-{name}-{'night' if dark else 'day'}")
        sum_of_rows = (
            "[...document.querySelectorAll('#fall .sum')].reduce((sum, row) => sum + parseFloat(row.textContent), 0)"
        )
        assert await page.run(sum_of_rows) == pytest.approx(421, abs=5)  # the stages add up to what was heard
        assert page.complaints == []


async def test_typing_works_where_the_microphone_is_refused() -> None:
    async with opened(ActingSessions(), "--use-fake-ui-for-media-stream=deny") as (page, sessions):
        await click(page, "start")
        await page.until("document.getElementById('problem-text').textContent.includes('microphone is refused')")
        button = await page.run("document.getElementById('start').textContent")
        assert button in await page.run("document.getElementById('problem-text').textContent"), (
            "it names another button"
        )
        assert not await page.run("document.getElementById('welcome').hidden"), "nothing says what to do"
        for device in (DESKTOP, PHONE):
            await page.emulate(device)
            edges = "[problem.getBoundingClientRect().bottom, welcome.getBoundingClientRect().top]"
            bottom, top = await page.run(edges)
            assert bottom <= top, "one is written over the other"
            await keep(page, f"refused-{device['width']}")
        await send(page, "What is twelve times seven?")
        await page.until(f"{SOUNDS.format('sound')} > 0")
        assert ("type", "What is twelve times seven?") in sessions.all[0].asked
        await click(page, "leave")
        await page.until("document.getElementById('state').textContent === 'not connected'")
        assert await page.run("document.getElementById('leave').hidden")


async def test_a_gateway_with_keys_is_given_one() -> None:
    async with opened(ActingSessions(), key="a secret") as (page, sessions):
        await send(page, "May I come in?")
        await page.until("document.getElementById('door').open")
        await keep(page, "door")
        await page.run("document.getElementById('key').value = 'a secret'")
        await page.run("document.querySelector('#door button[value=enter]').click()")
        await page.until("voicemesh.call.isOpen")
        assert len(sessions.all) == 1
        await page.until("document.querySelector('#voice option[value=ben]')")


async def test_a_full_house_is_said_in_a_sentence() -> None:
    async with opened(ActingSessions(limit=0)) as (page, _):
        await send(page, "Is there room?")
        await page.until("document.getElementById('problem-text').textContent.includes('All places are taken')")
        await keep(page, "full")
        assert await page.run("document.getElementById('state').textContent") == "not connected"


@pytest.mark.parametrize(
    "control", ["start", "mute", "interrupt", "leave", "text", "voice", "language", "microphone", "speaker"]
)
def test_every_control_has_a_name(control: str) -> None:
    page = (Path(__file__).parents[2] / "services/gateway/realtime/page/index.html").read_text()
    assert f'id="{control}"' in page
    if control in ("text", "voice", "language", "microphone", "speaker"):
        assert f'for="{control}"' in page


def test_the_page_holds_no_inline_code_and_no_outside_address() -> None:
    for file in (Path(__file__).parents[2] / "services/gateway/realtime/page").iterdir():
        text = file.read_text()
        outside = [part for part in text.split("//")[1:] if part.startswith(("cdn", "fonts", "unpkg"))]
        assert outside == []
        if file.suffix == ".html":
            assert "style=" not in text
            assert "<script>" not in text
            assert "onclick" not in text
