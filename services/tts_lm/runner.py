"""Owns weights, buffers and the device; turns a `StepPlan` into one frame of codes per sequence.

The only place where host sequences meet device tensors, and the lowest layer the engine knows. Decides nothing:
which rows run, what they read and when they end is settled before and after.

Two profiles. Fast: the rows that run, and no others. Deterministic: always the same batch shape, row = slot, idle rows
filled with a reserved position, so that no row's bits depend on its company; where the machine's matrix products would
still tell rows apart, each row is computed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from functools import partial

import torch
from torch import Tensor

from services.tts_lm.model.code_predictor import CodePredictor
from services.tts_lm.model.config import ModelConfig
from services.tts_lm.model.kv_cache import KvPool, Span
from services.tts_lm.model.matrix import Matrix, product
from services.tts_lm.model.prompt import SPEAKER, Frame, PromptRow
from services.tts_lm.model.randomness import frame_uniforms
from services.tts_lm.model.sampling import Filter, RowSampling, draw, penalise
from services.tts_lm.model.talker import Talker
from services.tts_lm.model.text_table import TextTable
from services.tts_lm.model.weights import ModelWeights
from services.tts_lm.native.library import Library
from services.tts_lm.pages import Pages
from services.tts_lm.prefix import Fill
from services.tts_lm.scheduler import StepPlan
from services.tts_lm.sequence import ResolvedSampling, Sequence

PAGE_SIZE = 64
_WORD = 0xFFFFFFFF
DRAWN_FRAMES = 64


class TorchRunner:
    """The runner on torch or the native kernels, as the rows come: what serves on a CPU."""

    def __init__(
        self,
        weights: ModelWeights,
        config: ModelConfig,
        *,
        slot_count: int,
        position_count: int,
        max_positions: int,
        deterministic: bool = False,
        library: Library | None = None,
    ) -> None:
        """On the compiled kernels of `library`, if given; their rows never tell each other apart."""
        self._config, self._slot_count, self._deterministic = config, slot_count, deterministic
        self.row_wise = deterministic and library is None and not rows_are_equal(weights, slot_count)
        self.page_size = PAGE_SIZE
        self.page_count = position_count // PAGE_SIZE
        self.talker = Talker(weights, config, max_positions, row_wise=self.row_wise, library=library)
        self.predictor = CodePredictor(
            weights, config, self.talker, slot_count, row_wise=self.row_wise, library=library
        )
        self.device = self.talker.device
        # One page more than the sequences can own: idle rows of the deterministic profile write there.
        pool_size = (self.page_count + 1) * PAGE_SIZE
        self.pool = KvPool(config.talker, pool_size, self.talker.kv_dtype, self.device)
        self._idle = Span(pool_size - 1, 1)
        self.text = TextTable(self.talker, config.text_vocab_size, config.talker.hidden_size, one_by_one=deterministic)
        self._slots = _SlotState(config, slot_count, max_positions, self.device)
        self._sampling: list[ResolvedSampling | None] = [None] * slot_count
        self._selected_for: object = None
        self._selected: tuple[Tensor, RowSampling, RowSampling, Filter, Filter]

    def launch(self, plan: StepPlan) -> Callable[[], list[Frame]]:
        """Nothing runs beside the caller here: everything is computed in the returned call."""
        return partial(self.execute, plan)

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> list[Frame]:
        if plan.fills:
            self._fill(plan.fills)
        sequences = plan.sequences
        if not sequences:
            return []
        for sequence in plan.prefills:
            self._open_slot(sequence)
        # What is left of a prompt behind its prefix is often one row: it is read with those that step.
        prompts = [s for s in plan.prefills if s.position == 0 or s.next_row_count() > 1]
        stepping = [s for s in sequences if s not in prompts]
        rows = list(range(self._slot_count)) if self._deterministic else [s.slot for s in sequences]
        place = {slot: row for row, slot in enumerate(rows)}
        hidden = torch.zeros(len(rows), self._config.talker.hidden_size, dtype=self.talker.dtype, device=self.device)
        if prompts:
            hidden[[place[s.slot] for s in prompts]] = self._prefill(prompts)
        if stepping:
            stepped = self._step(stepping, rows if self._deterministic else [s.slot for s in stepping])
            if self._deterministic:
                keep = [s.slot for s in stepping]
                hidden[keep] = stepped[keep]
            else:
                hidden[[place[s.slot] for s in stepping]] = stepped
        codes = self._frame(hidden, rows, sequences, place)
        listed = codes.tolist()  # the one point of a step where the host waits for the device
        return [tuple(listed[place[s.slot]]) for s in sequences]

    def _fill(self, fills: Rows[Fill]) -> None:
        """Prefixes into their pages; their hidden states are nobody's. Each runs alone, in both profiles: many will
        stand behind it, and nobody's bits shall depend on who else came when it was computed."""
        for fill in fills:
            count = len(fill.rows)
            span = page_span(fill.pages, count, self.page_size, self.device)
            self.talker.prefill(self.embed(fill.rows, fill.vector), [span], [count], self.pool)

    def _prefill(self, sequences: Rows[Sequence]) -> Tensor:
        prompts = [sequence.prompt_rows() for sequence in sequences]
        counts = [len(prompt) for prompt in prompts]
        spans = [self._span(s, n) for s, n in zip(sequences, counts, strict=True)]
        embedded = [self.embed(p, s.speaker_vector) for p, s in zip(prompts, sequences, strict=True)]
        return self._run_prompts(embedded, spans, counts)

    def _run_prompts(self, embedded: list[Tensor], spans: list[Span], counts: list[int]) -> Tensor:
        if self._deterministic:  # a prompt's own length is the only shape its bits may depend on
            alone = zip(embedded, spans, counts, strict=True)
            return torch.cat([self.talker.prefill(rows, [span], [n], self.pool) for rows, span, n in alone])
        return self.talker.prefill(torch.cat(embedded), spans, counts, self.pool)

    def _step(self, sequences: Rows[Sequence], slots: list[int]) -> Tensor:
        """Hidden states in the order of `slots`; slots without a sequence read and write the idle position."""
        spans = dict.fromkeys(slots, self._idle)
        positions, texts = dict.fromkeys(slots, 0), dict.fromkeys(slots, self._config.tts_pad)
        first: dict[int, Tensor] = {}
        for sequence in sequences:
            spans[sequence.slot] = self._span(sequence, 1)
            positions[sequence.slot] = sequence.position
            if sequence.prefilled:
                texts[sequence.slot] = sequence.next_text()
            else:
                first[sequence.slot] = self.embed(sequence.prompt_rows(), sequence.speaker_vector)[0]
        frames = self.talker.frame_rows(self._slots.codes[slots])
        rows = frames + self.text.rows(list(texts.values()))
        if first:
            rows[[slots.index(slot) for slot in first]] = torch.stack(list(first.values()))
        at = torch.tensor(list(positions.values()), device=self.device)
        return self.talker.step(rows, at, list(spans.values()), self.pool)

    def _frame(self, hidden: Tensor, slots: list[int], sequences: Rows[Sequence], place: dict[int, int]) -> Tensor:
        """Sample code 0 and predict the others: hidden [S, H] → codes [S, Q]."""
        frame, masked = [0] * len(slots), [True] * len(slots)
        for sequence in sequences:
            frame[place[sequence.slot]] = sequence.frame_count
            masked[place[sequence.slot]] = sequence.eos_masked()
        state, config = self._slots, self._config
        index, talker, predictor, batch, acoustic = self._selection(slots, sequences)
        uniforms = state.uniforms(index, frame, slots)
        logits = penalise(self.talker.logits(hidden), state.seen[index], state.penalty[index])
        logits = self.talker.forbid(logits, torch.tensor(masked, device=self.device))
        code0 = draw(logits, uniforms[:, 0], talker, batch)
        # A row that just ended has a control id here; its predictor runs on code 0 and nobody looks.
        heard = code0.where(code0 < config.codebook_size, 0)
        frames = self.predictor.frame(hidden, heard, uniforms, predictor, acoustic)
        frames[:, 0] = code0
        if len(sequences) < len(slots):  # a row that sits out keeps its state
            own = torch.tensor([place[s.slot] for s in sequences], device=self.device)
            index, code0, kept = index[own], code0[own], frames[own]
        else:
            kept = frames
        state.seen[index, code0] = True
        state.codes[index] = kept
        return frames

    def _selection(
        self, slots: list[int], sequences: Rows[Sequence]
    ) -> tuple[Tensor, RowSampling, RowSampling, Filter, Filter]:
        """How these slots are sampled; the same from step to step until somebody comes or goes."""
        key = (tuple(slots), tuple(sorted(s.slot for s in sequences)), self._slots.version)
        if key != self._selected_for:
            index = torch.tensor(slots, device=self.device)
            used = [sampling for s in sequences if (sampling := self._sampling[s.slot]) is not None]
            rows = self._slots.talker_rows(index), self._slots.predictor_rows(index)
            self._selected = (index, *rows, _talker_filter(used), _predictor_filter(used))
            self._selected_for = key
        return self._selected

    def embed(self, rows: Rows[PromptRow], vector: tuple[float, ...] | None) -> Tensor:
        """A prompt's rows as embeddings [R, H]."""
        embedded = self.text.rows([row.text for row in rows]).clone()
        controls = [(i, row.codec) for i, row in enumerate(rows) if isinstance(row.codec, int)]
        frames = [(i, row.codec) for i, row in enumerate(rows) if isinstance(row.codec, tuple)]
        if controls:
            where, ids = (torch.tensor(x, device=self.device) for x in zip(*controls, strict=True))
            embedded[where] += self.talker.codec_rows(ids)
        if frames:
            where, codes = (torch.tensor(x, device=self.device) for x in zip(*frames, strict=True))
            embedded[where] += self.talker.frame_rows(codes)
        for i, row in enumerate(rows):
            if row.codec == SPEAKER:
                embedded[i] += torch.tensor(vector, device=self.device).to(self.talker.dtype)
        return embedded

    def _open_slot(self, sequence: Sequence) -> None:
        self._sampling[sequence.slot] = sequence.sampling
        self._slots.open(sequence.slot, sequence.sampling, sequence.prompt.resumed)
        if sequence.copy is not None:
            copy = sequence.copy
            target = sequence.pages.numbers[copy.place]
            self.pool.copy(copy.source * self.page_size, target * self.page_size, copy.row_count)

    def _span(self, sequence: Sequence, new_rows: int) -> Span:
        return self._slots.span(sequence.slot, sequence.pages, sequence.position + new_rows, self.page_size)


class _SlotState:
    """What each slot carries from frame to frame; allocated once, first dimension S."""

    def __init__(self, config: ModelConfig, slot_count: int, max_positions: int, device: torch.device) -> None:
        def numbers(dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.ones(slot_count, dtype=dtype, device=device)

        self.codes = torch.zeros(slot_count, config.codebook_count, dtype=torch.int64, device=device)
        self.seen = torch.zeros(slot_count, config.codec_vocab_size, dtype=torch.bool, device=device)
        # Draws of the next frames: each is a function of its counter, so they are made a block at a time.
        self._uniforms = torch.zeros(
            slot_count, DRAWN_FRAMES, config.codebook_count, dtype=torch.float64, device=device
        )
        self._drawn = [-1] * slot_count  # which block each slot holds
        self._seeds = [0] * slot_count
        self.version = 0
        self.penalty = numbers()
        self._talker = RowSampling(numbers(torch.bool), numbers(), numbers(torch.int64), numbers())
        self._predictor = RowSampling(numbers(torch.bool), numbers(), numbers(torch.int64), numbers())
        # Page lists as pool positions, used only by sequences whose pages are not contiguous.
        self._scattered = torch.zeros(slot_count, max_positions + PAGE_SIZE, dtype=torch.int64, device=device)
        self._listed = [0] * slot_count

    def open(self, slot: int, sampling: ResolvedSampling, resumed: tuple[Frame, ...]) -> None:
        """Make the slot fresh for its next tenant."""
        self.seen[slot] = False
        if resumed:
            self.seen[slot, [frame[0] for frame in resumed]] = True
        self._seeds[slot], self._drawn[slot] = sampling.seed, -1
        self.version += 1
        self.penalty[slot] = sampling.repetition_penalty
        s = sampling
        values = (
            (self._talker, (s.greedy, s.temperature, s.top_k, s.top_p)),
            (self._predictor, (s.predictor_greedy, s.predictor_temperature, s.predictor_top_k, s.predictor_top_p)),
        )
        for rows, row in values:
            rows.greedy[slot], rows.temperature[slot], rows.top_k[slot], rows.top_p[slot] = row
        self._listed[slot] = 0

    def uniforms(self, index: Tensor, frames: list[int], slots: list[int]) -> Tensor:
        """The draws of each slot's frame: [S, Q] float64."""
        for slot, frame in zip(slots, frames, strict=True):
            if self._drawn[slot] != frame // DRAWN_FRAMES:
                self._drawn[slot] = frame // DRAWN_FRAMES
                self._draw(slot, self._drawn[slot] * DRAWN_FRAMES)
        return self._uniforms[index, torch.tensor([frame % DRAWN_FRAMES for frame in frames], device=index.device)]

    def _draw(self, slot: int, first: int) -> None:
        frames = torch.arange(first, first + DRAWN_FRAMES, device=self._uniforms.device)
        low, high = (torch.full_like(frames, word & _WORD) for word in (self._seeds[slot], self._seeds[slot] >> 32))
        self._uniforms[slot] = frame_uniforms(low, high, frames, self._uniforms.shape[2])

    def talker_rows(self, index: Tensor) -> RowSampling:
        return _select(self._talker, index)

    def predictor_rows(self, index: Tensor) -> RowSampling:
        return _select(self._predictor, index)

    def span(self, slot: int, pages: Pages, length: int, page_size: int) -> Span:
        start = pages.numbers[0] * page_size
        if pages.contiguous:
            return Span(start, length)
        positions = self._scattered[slot]
        for i in range(self._listed[slot], len(pages.numbers)):
            first = pages.numbers[i] * page_size
            positions[i * page_size : (i + 1) * page_size] = torch.arange(first, first + page_size)
        self._listed[slot] = len(pages.numbers)
        return Span(start, length, positions[:length])


def page_span(pages: Pages, length: int, page_size: int, device: torch.device) -> Span:
    """The first `length` positions of these pages, which are no slot's."""
    start = pages.numbers[0] * page_size
    if pages.contiguous:
        return Span(start, length)
    firsts = torch.tensor(pages.numbers, device=device)[:, None] * page_size
    positions = (firsts + torch.arange(page_size, device=device)).flatten()
    return Span(start, length, positions[:length])


def rows_are_equal(weights: ModelWeights, row_count: int) -> bool:
    """Whether a fixed batch of `row_count` rows gives a row the same bits at every place and beside every mate.

    Measured on the model's own matrices, because libraries treat the last rows of a block, or large batches,
    differently.
    """
    layers, table = (weights.talker.layers[0], weights.predictor.layers[0]), weights.frame_table
    matrices: list[Matrix] = [m for layer in layers for m in (layer.qkv, layer.output, layer.gate_up, layer.down)]
    matrices += [weights.codec_head, weights.predictor_heads[0]]
    if weights.predictor_input is not None:
        matrices.append(weights.predictor_input[0])
    generator = torch.Generator().manual_seed(0)
    for matrix in matrices:
        for rows in (row_count, 2 * row_count):  # the predictor's first pass takes two rows per sequence
            probe = torch.randn(1, matrix.shape[1], generator=generator)
            seen = []
            for place in range(rows):
                batch = torch.randn(rows, matrix.shape[1], generator=generator)
                batch[place] = probe
                seen.append(product(batch.to(table.device, table.dtype), matrix)[place])
            if any(not torch.equal(seen[0], other) for other in seen[1:]):
                return False
    return True


def _select(rows: RowSampling, index: Tensor) -> RowSampling:
    return RowSampling(rows.greedy[index], rows.temperature[index], rows.top_k[index], rows.top_p[index])


def _talker_filter(used: list[ResolvedSampling]) -> Filter:
    drawn = [(s.top_k, s.top_p) for s in used if not s.greedy]
    return _filter(drawn, len(used))


def _predictor_filter(used: list[ResolvedSampling]) -> Filter:
    drawn = [(s.predictor_top_k, s.predictor_top_p) for s in used if not s.predictor_greedy]
    return _filter(drawn, len(used))


def _filter(drawn: list[tuple[int, float]], count: int) -> Filter:
    shared = {top_k for top_k, _ in drawn}
    return Filter(
        all_greedy=not drawn,
        any_greedy=len(drawn) < count,
        top_k=shared.pop() if len(shared) == 1 else None,
        top_p=any(top_p < 1 for _, top_p in drawn),
    )
