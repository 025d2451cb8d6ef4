"""All that is known of one utterance while it is spoken: text, frames, credit, limits. No tensors, no clock of its own.

The engine feeds it commands and sampled codes; it answers whether it can advance, what the next row reads, and when
it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from common.playout import Playout
from common.slots import Lease
from common.stream import FinishReason
from services.tts_lm.guards import RunawayGuard
from services.tts_lm.model.prompt import Frame, Prompt, PromptRow, Script
from services.tts_lm.pages import Pages
from services.tts_lm.prefix import Entry, Fill, PageCopy, Prefix


@dataclass(frozen=True)
class ResolvedSampling:
    """Sampling with every default filled in; `top_k` 0 and `top_p` 1 are off."""

    seed: int
    greedy: bool
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    predictor_greedy: bool
    predictor_temperature: float
    predictor_top_k: int
    predictor_top_p: float


@dataclass(frozen=True)
class Terms:
    """What the request and the model allow: limits in frames, positions and seconds."""

    max_frames: int
    max_positions: int
    max_lead_frames: int | None
    unread_frame_limit: int
    packet_ramp: tuple[int, ...]
    text_timeout_s: float | None
    reference_behaviour: bool
    end_of_speech: int
    frame_s: float


@dataclass(frozen=True)
class Packet:
    """Frames that leave together."""

    first_frame_index: int
    codes: tuple[Frame, ...]
    text_token_count: int


@dataclass
class Sequence:
    """One utterance and its slot. `frames` counts every frame of the speech, those resumed from included."""

    lease: Lease
    prompt: Prompt
    script: Script
    sampling: ResolvedSampling
    speaker_vector: tuple[float, ...] | None
    terms: Terms
    prefix: Prefix | None = None
    """What runs in a pass of its own before the rest of the prompt; None: the prompt runs whole."""
    pages: Pages = field(default_factory=Pages)
    position: int = 0
    """Positions that are in the KV cache, or will be when the next row is read."""
    fill: Fill | None = None
    """The pass that puts the first `position` rows there."""
    entry: Entry | None = None
    """Where it is shared with others; pinned."""
    copy: PageCopy | None = None
    """Rows that this sequence takes over from a page of `entry` with its first row."""
    end: FinishReason | None = None
    credit: int | None = None
    compute_s: float = 0.0
    read_count: int = 0
    """Frames that the reader is known to have taken."""
    starved_since_s: float | None = None
    """When the row began to wait for text; the engine's clock."""

    def __post_init__(self) -> None:
        self.frame_count = self.first_frame = len(self.prompt.resumed)
        self.credit = self.terms.max_lead_frames
        if self.frame_count >= self.terms.max_frames:
            self.end = FinishReason.LENGTH
        self._read = 0  # text rows read
        self._guard = RunawayGuard()
        self._waiting: list[Frame] = []
        self._ramp = 0
        self._prefilled = False
        self._frame_at_s: float | None = None
        self._interval_s = 0.0
        self.playout = Playout(self.terms.frame_s)
        self.served_turn = -1  # when it last advanced; the engine's count

    @property
    def slot(self) -> int:
        return self.lease.slot

    # What may happen next

    @property
    def prefilled(self) -> bool:
        """Whether the prompt has run."""
        return self._prefilled

    @property
    def unheard(self) -> bool:
        """Whether nothing of it has gone out yet."""
        return not self.playout.begun

    def lead_s(self, now_s: float) -> float:
        """How far it is ahead of its listener; 0 when the listener waits."""
        return self.playout.lead_s(now_s, len(self._waiting))

    def lacks_text(self) -> bool:
        """Whether the next row cannot be read because its text is late."""
        if not self.prefilled:
            return not self.prompt.ready(self.script)
        return self.script.row(self._read) is None

    @property
    def produced_count(self) -> int:
        """Frames made here, without those resumed from."""
        return self.frame_count - self.first_frame

    def lacks_credit(self) -> bool:
        """Whether the reader has not asked for more, or has not read what there is."""
        unread = self.produced_count - self.read_count
        if unread >= self.terms.unread_frame_limit:
            return True
        return self.credit is not None and self.produced_count >= self.credit

    def is_empty(self) -> bool:
        """Nothing to say, and nothing will come."""
        return self.script.finished and self.script.target_count == 0

    def prompt_rows(self) -> tuple[PromptRow, ...]:
        """Rows of the prompt behind its prefix; all of them before `stand_behind`."""
        return self.prompt.rows(self.script)[self.position :]

    def next_row_count(self) -> int:
        """Rows that the next step puts into the KV cache."""
        return 1 if self.prefilled else len(self.prompt_rows())

    def next_text(self) -> int:
        row = self.script.row(self._read)
        assert row is not None, "the row was not ready"
        return row

    def eos_masked(self) -> bool:
        """Whether the sample after the next row must not end speech: the two-frame minimum, and text not yet read."""
        if self.frame_count < 2:
            return True
        if self.terms.reference_behaviour:
            return False
        read, end = self._read_after_next_row(), self.script.end
        return end is None or read < end

    def _read_after_next_row(self) -> int:
        if self.prefilled:
            return self._read + 1
        read = self.prompt.read_before_first_frame(self.script)
        assert read is not None
        return read + len(self.prompt.resumed)

    # Where it begins

    def stand_behind(self, entry: Entry | None, page_size: int) -> None:
        """Begin behind the prefix: as `entry` holds it, or computed into pages of its own."""
        assert self.prefix is not None
        self.position = len(self.prefix.rows)
        if entry is None:
            self.fill = Fill(self.prefix.rows, self.prefix.vector, self.pages)
            return
        entry.pins += 1
        self.entry, self.fill = entry, entry.fill
        shared, rest = divmod(self.position, page_size)
        self.pages.borrow(entry.fill.pages.numbers[:shared])
        if rest:
            self.copy = PageCopy(entry.fill.pages.numbers[shared], shared, rest)

    def step_back(self) -> None:
        """Undo `stand_behind`, for want of room; its own pages are given back by whoever gave them."""
        self.position, self.fill, self.copy = 0, None, None
        self._unpin()

    def _unpin(self) -> None:
        if self.entry is not None:
            self.entry.pins -= 1
            self.entry = None

    # What happened

    def advance(self, row_count: int) -> None:
        """`row_count` rows went into the KV cache: the prompt, or one step."""
        self._read = self._read_after_next_row()
        self.position += row_count
        self._prefilled = True
        self.fill = self.copy = None
        if not self.pages.borrowed:
            self._unpin()

    def sampled(self, codes: Frame) -> None:
        """The codes that followed; sets `end` when this was the last of them."""
        if codes[0] == self.terms.end_of_speech:
            self.end = FinishReason.COMPLETED
            return
        self._waiting.append(codes)
        self.frame_count += 1
        if self.frame_count >= self.terms.max_frames or self.position >= self.terms.max_positions:
            self.end = FinishReason.LENGTH
        elif self._ran_away(codes[0]):
            self.end = FinishReason.RUNAWAY

    def _ran_away(self, code: int) -> bool:
        if self.terms.reference_behaviour:
            return False
        script = self.script
        finished = script.end is not None and self._read >= script.end
        return self._guard.frame(code, self.frame_count, script.target_count, finished)

    def text_token_count(self) -> int:
        """Tokens of the text that have been read."""
        return self.script.consumed(self._read)

    def take_packet(self, *, pausing: bool, now_s: float = 0.0) -> Packet | None:
        """The next message of the packet ramp when it is full, and what there is when the row pauses, has ended, or
        when the listener would have nothing left before the message is full.
        """
        ramp = self.terms.packet_ramp
        self._interval_s = 0.0 if self._frame_at_s is None else now_s - self._frame_at_s
        self._frame_at_s = now_s
        missing = ramp[self._ramp] - len(self._waiting)
        if not self._waiting or not (pausing or self.end is not None or missing <= 0 or self._is_late(missing, now_s)):
            return None
        codes, self._waiting = tuple(self._waiting), []
        if missing <= 0:
            self._ramp = min(self._ramp + 1, len(ramp) - 1)
        self.playout.sent(len(codes), now_s)
        return Packet(self.frame_count - len(codes), codes, self.text_token_count())

    def _is_late(self, missing: int, now_s: float) -> bool:
        """Whether the listener runs dry within half a frame of the moment at which the packet will be full."""
        return self.playout.begun and self.playout.lead_s(now_s) < missing * self._interval_s + self.terms.frame_s / 2

    def leave(self) -> None:
        """It is over: let go of what it shared."""
        self._unpin()
