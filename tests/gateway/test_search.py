"""Whom an utterance is given to, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from common.errors import Broken, InvalidRequest, MeshError, NotReady, Overloaded
from services.gateway.clients import Replica, Replicas
from services.gateway.search import Patience, Search
from tests.virtual_time import run

FULL, DOWN, BROKEN = Overloaded("full"), NotReady("down"), Broken("broken")


class House:
    """Stands where `Replicas` stands: as many as there are names, asked in their order."""

    def __init__(self, names: str) -> None:
        self.names = names
        self.settled: list[str] = []

    def choose(self, session_id: str, tried: Any = ()) -> Replica | None:
        return cast(Replica, next((name for name in self.names if name not in tried), None))

    def settle(self, session_id: str, replica: Any) -> None:
        self.settled.append(replica)

    def down(self) -> MeshError:
        return NotReady("nobody answers", reason="DEPENDENCY_DOWN")


def searching(names: str, patience: Patience | None = None) -> tuple[Search, House]:
    house = House(names)
    return Search(cast(Replicas, house), "s", patience or Patience(2.0, 10.0)), house


def test_everybody_is_asked_once_and_a_full_house_answers_without_waiting() -> None:
    async def scenario() -> None:
        search, _ = searching("abc")
        asked = [await search.next(), await search.next(FULL), await search.next(DOWN)]
        assert asked == ["a", "b", "c"]
        with pytest.raises(Overloaded):
            await search.next(DOWN)

    run(scenario())


async def attempts(search: Search, error: MeshError) -> tuple[int, MeshError]:
    """How often somebody is asked when everybody answers that, and what is said in the end."""
    await search.next()
    for asked in range(1, 10_000):
        try:
            await search.next(error)
        except MeshError as last:
            return asked, last
    raise AssertionError("nobody gave up")


def test_who_is_down_is_asked_again_until_patience_ends() -> None:
    async def scenario() -> tuple[int, MeshError]:
        return await attempts(searching("ab")[0], DOWN)

    asked, last = run(scenario())
    assert 4 < asked < 40
    assert last.reason == "DEPENDENCY_DOWN"


def test_once_speech_has_begun_a_full_house_is_waited_for() -> None:
    async def scenario() -> None:
        search, house = searching("ab")
        await search.next()
        search.admitted()
        search.progressed()
        assert house.settled == ["a"]
        asked = [await search.next(DOWN)] + [await search.next(FULL) for _ in range(4)]
        assert asked[0] == "b"
        assert "a" in asked

    run(scenario())


@pytest.mark.parametrize(("error", "patience_s"), [(FULL, 60.0), (DOWN, 10.0)])
def test_speech_that_has_begun_waits_longer_for_a_place_than_for_the_dead(error: MeshError, patience_s: float) -> None:
    async def scenario() -> float:
        search, _ = searching("ab")
        await search.next()
        search.admitted()
        search.progressed()
        began_s = asyncio.get_running_loop().time()
        await attempts(search, error)
        return asyncio.get_running_loop().time() - began_s

    assert run(scenario()) == pytest.approx(patience_s, abs=1.1)


def test_who_was_full_and_then_died_is_waited_for_as_the_dead_are() -> None:
    async def scenario() -> tuple[float, MeshError]:
        search, _ = searching("a")
        await search.next()
        search.admitted()
        search.progressed()
        began_s = asyncio.get_running_loop().time()
        await search.next(FULL)
        _, last = await attempts(search, DOWN)
        return asyncio.get_running_loop().time() - began_s, last

    waited_s, last = run(scenario())
    assert waited_s < 11.1
    assert last.reason == "DEPENDENCY_DOWN"


@pytest.mark.parametrize(("error", "most"), [(InvalidRequest("no"), 1), (BROKEN, 2)])
def test_what_others_would_say_too_is_not_asked_of_everybody(error: MeshError, most: int) -> None:
    async def scenario() -> tuple[int, MeshError]:
        return await attempts(searching("abcdef")[0], error)

    assert run(scenario()) == (most, error)


def test_an_utterance_that_kills_whoever_takes_it_is_given_up() -> None:
    async def scenario() -> int:
        search, _ = searching("ab", Patience(2.0, 1e9))
        await search.next()
        for killed in range(1, 99):
            search.admitted()
            try:
                await search.next(DOWN)
            except NotReady:
                return killed
        raise AssertionError("nobody gave up")

    assert run(scenario()) == 5
