"""Any script a caller can say, over real gRPC: the service does what the rules say, and keeps every promise.

Each script is judged twice: by a guard on the caller's side, which knows only the script, and by what is heard.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import MeshError
from common.stream import Drop, FinishReason, Kind, Marks, Place, StreamGuard
from tests.conformance.dialects import DIALECTS, Dialect
from tests.conformance.house import House, house
from tests.guarantees import History, check

EXAMPLES = 150

marks = st.fixed_dictionaries(
    {},
    optional={"epoch": st.integers(0, 3), "seq": st.integers(0, 5), "utterance": st.integers(0, 2)},
)
usual = st.tuples(st.sampled_from([Kind.START, Kind.INPUT, Kind.INPUT, Kind.FLUSH]), st.just({}))
within = st.tuples(
    st.sampled_from([Kind.START, Kind.FLUSH, Kind.STOP]), st.fixed_dictionaries({"epoch": st.integers(0, 3)})
)
anything = st.tuples(st.sampled_from(list(Kind)), marks)
scripts = st.lists(st.one_of(usual, usual, usual, within, anything), max_size=20)


class Expectation:
    """What the rules make of a script, and the requests that say it in a service's words."""

    def __init__(self, dialect: Dialect, script: list[tuple[Kind, dict[str, int]]]) -> None:
        self.requests: list[Any] = []
        self.history = History()
        self.inputs: dict[Place, int] = {}
        self.cut: set[Place] = set()
        self.status = "OK"
        self._guard = StreamGuard("caller", one_per_epoch=dialect.name == "brain")
        for kind, given_marks in script:
            if kind in dialect.kinds() and self.status == "OK":
                self._say(dialect, kind, given_marks)
        if self.status == "OK":
            self.cut |= set(self._guard.half_close())

    def _say(self, dialect: Dialect, kind: Kind, given_marks: dict[str, int]) -> None:
        given_marks = {k: v for k, v in given_marks.items() if k != "utterance" or dialect.has_utterances}
        index = 0
        try:
            verdict = self._guard.accept(Marks(kind, **given_marks))
        except MeshError as error:
            self.status = error.status
        else:
            self.cut |= set(verdict.cancelled)
            if verdict.drop is not Drop.REPEATED and verdict.drop is not Drop.STALE:
                index = self._accepted(kind, verdict.place)
        self.requests.append(dialect.say(kind, index, **given_marks))

    def _accepted(self, kind: Kind, place: Place) -> int:
        if kind is Kind.START:
            self.history.begun.append(place)
            self.inputs[place] = 0
        elif kind is Kind.FLUSH:
            self.history.flushed.add(place)
        elif kind is Kind.RESET:
            self.history.resets += 1
        elif kind is Kind.INPUT:
            self.inputs[place] += 1
            return self.inputs[place] - 1
        return 0


async def play(home: House, script: list[tuple[Kind, dict[str, int]]]) -> None:
    expectation = Expectation(home.dialect, script)
    stream = home.stream()
    stream.history = expectation.history
    for request in expectation.requests:
        await stream.send(request)
    assert await stream.finish() == expectation.status
    check(stream.history)
    utterances = stream.history.utterances()
    for number, place in enumerate(stream.history.begun[: len(utterances)]):
        end = utterances[number][-1]
        said = home.dialect.whole(expectation.inputs[place])
        if end.kind == "ended" and end.reason is FinishReason.COMPLETED:
            assert stream.product(number) == said
        else:
            heard = stream.product(number)
            assert heard == said[: len(heard)]
        if end.kind == "ended" and place not in expectation.cut:
            assert end.reason is FinishReason.COMPLETED, end
    await home.empty()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("service", sorted(DIALECTS))
def test_any_script_is_answered_as_the_rules_say(service):
    with asyncio.Runner() as runner:
        opening = house(service)
        home = runner.run(opening.__aenter__())

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        @given(scripts)
        def plays(script: list[tuple[Kind, dict[str, int]]]) -> None:
            runner.run(play(home, script))

        try:
            plays()
        finally:
            runner.run(opening.__aexit__(None, None, None))
