"""The promises of a stream, each with its sentence and its check, run on the history of what one caller said and heard.

    check(history)      # AssertionError with the sentence of the first promise that was broken

A history is what the caller saw, in the words that all services share; `tests/conformance/dialects.py` translates. It
knows nothing of the service's insides: whatever talks by these rules can be held to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from common.stream import FinishReason, Place


@dataclass(frozen=True)
class Heard:
    """One response. `kind`: started, product, note (a tool call, a transcript), ended or reset_done.

    `first` and `count` place a product in its utterance, where the service counts; `payload` is what it says.
    """

    kind: str
    session_id: str
    epoch: int
    seq: int
    utterance: int | None = None
    first: int | None = None
    count: int = 0
    payload: Any = None
    reason: FinishReason = FinishReason.UNSPECIFIED
    error: Any = None


@dataclass
class History:
    """What one caller saw of one stream. `is_open` until a status came; `begun` holds the starts that the rules accept,
    in order, and `flushed` those of them whose input was completed."""

    heard: list[Heard] = field(default_factory=list)
    begun: list[Place] = field(default_factory=list)
    flushed: set[Place] = field(default_factory=set)
    resets: int = 0
    status: str | None = None

    def utterances(self) -> list[list[Heard]]:
        """What was heard, one list per utterance, in order: each list ends with `ended` or with the history."""
        found: list[list[Heard]] = [[]]
        for response in self.heard:
            if response.kind == "reset_done":
                continue
            found[-1].append(response)
            if response.kind == "ended":
                found.append([])
        return [one for one in found if one]


Promise = Callable[[History], None]
PROMISES: list[tuple[str, Promise]] = []


def promise(sentence: str) -> Callable[[Promise], Promise]:
    """Register a check under its sentence."""

    def keep(check: Promise) -> Promise:
        PROMISES.append((sentence, check))
        return check

    return keep


def check(history: History) -> None:
    """Hold a history to every promise."""
    for sentence, holds in PROMISES:
        try:
            holds(history)
        except AssertionError as broken:
            raise AssertionError(f"{sentence}\n{broken}\n" + "\n".join(map(str, history.heard))) from None


@promise("Responses are numbered from 0 without a gap and without a repeat.")
def _numbered(history: History) -> None:
    assert [response.seq for response in history.heard] == list(range(len(history.heard)))


@promise("All responses of a stream name one session.")
def _one_session(history: History) -> None:
    assert len({response.session_id for response in history.heard}) <= 1
    assert all(response.session_id for response in history.heard)


@promise("Epochs never fall: nothing of an older epoch is heard after something of a newer one.")
def _epochs_rise(history: History) -> None:
    assert all(a.epoch <= b.epoch for a, b in pairwise(history.heard))


@promise("Utterances never interleave: each is heard whole before the next one is begun.")
def _no_interleaving(history: History) -> None:
    for utterance in history.utterances():
        assert len({(response.epoch, response.utterance) for response in utterance}) == 1


@promise("An utterance is started first, then speaks, then ends, each in its place; one that never started only ends.")
def _shape(history: History) -> None:
    for utterance in history.utterances():
        kinds = [response.kind for response in utterance]
        assert kinds == ["ended"] or kinds[0] == "started"
        assert kinds.count("started") <= 1


@promise("Every utterance that was begun ends exactly once, in the order of the starts.")
def _ends_once(history: History) -> None:
    ends = [response for response in history.heard if response.kind == "ended"]
    begun = history.begun[: len(ends)]
    assert [response.epoch for response in ends] == [place.epoch for place in begun]
    for response, place in zip(ends, begun, strict=True):
        assert response.utterance in (None, place.utterance)
    if history.status == "OK":
        assert len(ends) == len(history.begun)


@promise("Every reset is answered once.")
def _resets_answered(history: History) -> None:
    answers = sum(response.kind == "reset_done" for response in history.heard)
    assert answers <= history.resets
    if history.status == "OK":
        assert answers == history.resets


@promise("Products follow one another without gap and without overlap.")
def _contiguous(history: History) -> None:
    for utterance in history.utterances():
        for one, following in pairwise(_counted(utterance)):
            assert one.first is not None
            assert following.first == one.first + one.count


@promise("An end counts what was delivered.")
def _counts(history: History) -> None:
    for utterance in history.utterances():
        if utterance[-1].kind == "ended" and utterance[-1].reason is FinishReason.COMPLETED:
            assert utterance[-1].count == sum(response.count for response in utterance if response.kind == "product")


@promise("Only what failed says what went wrong, and what failed always does.")
def _errors(history: History) -> None:
    for response in history.heard:
        if response.kind == "ended":
            assert (response.error is not None) == (response.reason is FinishReason.FAILED)
            assert response.reason is not FinishReason.UNSPECIFIED


@promise("Only what was completed by its caller is COMPLETED.")
def _completed_means_flushed(history: History) -> None:
    ends = [response for response in history.heard if response.kind == "ended"]
    for response, place in zip(ends, history.begun, strict=False):
        assert response.reason is not FinishReason.COMPLETED or place in history.flushed


def _counted(utterance: Sequence[Heard]) -> Iterator[Heard]:
    return (response for response in utterance if response.kind == "product" and response.first is not None)
