"""The moments of one turn: told to telemetry once each, in order, so that the steps between them add up to the whole.

A speculative answer may be ready before its turn is over; what was reached before the moment that comes before it in a
turn (`Milestone`'s order) counts as reached then: the person did not wait for it. Pure but for the telemetry it tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from common.telemetry import Milestone
from common.telemetry.spans import Turn

ORDER = tuple(Milestone)


class Timeline:
    """One turn's. Times are Unix seconds. `open` says when the turn was over: until then nothing is told."""

    def __init__(self, work: Turn) -> None:
        self.work = work
        self._raw_s: dict[Milestone, float] = {}
        self._told_s: dict[Milestone, float] = {}
        self._is_open = False

    def open(self, speech_end_s: float, endpoint_s: float) -> None:
        """The person stopped speaking then, and we were sure of it then."""
        self._raw_s[Milestone.USER_SPEECH_END] = min(speech_end_s, endpoint_s)
        self._raw_s[Milestone.ENDPOINT] = endpoint_s
        self._is_open = True
        self._tell()

    def reopen(self) -> None:
        """The turn goes on: nothing of it counts."""
        if not self._told_s:
            self._raw_s.clear()
            self._is_open = False

    def reached(self, milestone: Milestone, time_s: float) -> bool:
        """Each counts once; False for what was known."""
        if milestone in self._raw_s:
            return False
        self._raw_s[milestone] = time_s
        if self._is_open:
            self._tell()
        return True

    def forget_answer(self) -> None:
        """The answer begins anew: what was reached of it does not count unless it was told."""
        kept = (Milestone.USER_SPEECH_END, Milestone.ENDPOINT)
        self._raw_s = {one: at for one, at in self._raw_s.items() if one in kept or one in self._told_s}

    def _tell(self) -> None:
        for milestone in ORDER:
            if milestone in self._raw_s and milestone not in self._told_s:
                latest_s = max(self._told_s.values(), default=0.0)
                self._told_s[milestone] = max(latest_s, self._raw_s[milestone])
                self.work.milestone(milestone, self._told_s[milestone])

    @property
    def times_s(self) -> Mapping[Milestone, float]:
        """Unix times, in order."""
        return dict(sorted(self._told_s.items(), key=lambda item: (item[1], ORDER.index(item[0]))))

    @property
    def since_speech_end_s(self) -> Mapping[Milestone, float]:
        """The same, counted from the end of the person's speech; empty until that is known."""
        begin_s = self._told_s.get(Milestone.USER_SPEECH_END)
        return {} if begin_s is None else {one: at - begin_s for one, at in self.times_s.items()}

    @property
    def steps_s(self) -> Mapping[Milestone, float]:
        """How long each step took; they add up to the last milestone's time since the end of the speech."""
        times = list(self.times_s.items())
        return {one: at - before for (_, before), (one, at) in pairwise(times)}
