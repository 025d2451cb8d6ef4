"""The runner on CUDA: a whole frame of every row is one captured graph, and nothing else happens per step.

Turns a `StepPlan` into the integers that the graph reads, and codes on their way back into frames. What only the
device knows stays there (`SlotTensors`); what the host knows anyway, positions and pages, is given with every step, so
that there is nothing to keep equal on two sides. A prompt is a pass over all its rows but the last, and the last one
joins the step of the others: the first frame costs what every other frame costs.

`eager=True`, or a CPU, runs the same functions without graphs: the twin that tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.graphs import Bucket, GraphedStep
from services.tts_lm.model.config import ModelConfig
from services.tts_lm.model.kv_cache import KvPool
from services.tts_lm.model.prompt import SPEAKER, CodecPart, Frame, PromptRow
from services.tts_lm.model.step import NO_CODE, FrameStep, PromptInputs, StepInputs
from services.tts_lm.model.step_kernels import SlotTensors, StepKernels, TorchStepKernels
from services.tts_lm.model.talker import Talker
from services.tts_lm.model.text_table import projected_text
from services.tts_lm.model.weights import ModelWeights
from services.tts_lm.pages import Pages
from services.tts_lm.runner import PAGE_SIZE, rows_are_equal
from services.tts_lm.scheduler import StepPlan
from services.tts_lm.sequence import ResolvedSampling, Sequence

StepArithmetic = Literal["auto", "triton", "torch"]
Integers = npt.NDArray[np.int64]

PROMPT_ROWS = (16, 64, 256)
"""Rows of a captured pass over a prompt; a longer one runs in several, each reading what those before it kept."""
FIRST_CONTEXT = 256
"""Positions of the smallest bucket: 20 s of speech, and one stretch of the attention (`fused/attention.py`)."""
CONTEXT_STEP = 4


class GraphedRunner:
    """Executes plans on one stream. `capture` comes first, and after it nothing is ever captured."""

    page_size = PAGE_SIZE

    def __init__(
        self,
        weights: ModelWeights,
        config: ModelConfig,
        *,
        slot_count: int,
        position_count: int,
        max_positions: int,
        deterministic: bool = False,
        eager: bool = False,
        kernels: StepArithmetic = "auto",
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        self._config, self.page_count = config, position_count // PAGE_SIZE
        self.device = weights.frame_table.device
        self._padding = slot_count  # the slot, and page `page_count`, that padding reads and writes
        self.kernels = step_kernels(kernels, weights, slot_count, deterministic=deterministic)
        # Where a row's bits may depend on the shape of its batch, the deterministic profile knows one shape.
        fixed = deterministic and not self.kernels.batch_invariant
        talker = Talker(weights, config, max_positions, row_wise=False)
        self.pool = KvPool(config.talker, (self.page_count + 1) * PAGE_SIZE, talker.kv_dtype, self.device)
        self.slots = SlotTensors.allocate(
            slot_count + 1, config.codebook_count, config.codec_vocab_size, self.device
        )  # fmt: skip
        self.frame_step = FrameStep(
            weights,
            config,
            talker,
            self.kernels,
            text_table=projected_text(talker, config.text_vocab_size),
            memory=self.pool.memory,
            page_size=PAGE_SIZE,
            slots=self.slots,
            max_rows=slot_count,
            max_positions=max_positions,
        )
        rows = (slot_count,) if fixed else batch_sizes(slot_count)
        contexts = context_sizes(max_positions)[-1 if fixed else 0 :]
        self.stream = stream
        if self.device.type == "cuda" and stream is None:
            self.stream = _between(self.device)
        self._step = GraphedStep(
            self.frame_step.step,
            self._empty_step,
            [(count, context) for count in rows for context in contexts],
            self.device,
            eager=eager,
            stream=self.stream,
        )
        self._prompt = GraphedStep(
            self.frame_step.prompt,
            self._empty_prompt,
            [(count, context) for count in PROMPT_ROWS for context in contexts],
            self.device,
            eager=eager,
            stream=self.stream,
        )
        shape = (slot_count, config.codebook_count)
        self._codes = torch.empty(shape, dtype=torch.int64, pin_memory=self.device.type == "cuda")

    @property
    def buckets(self) -> list[Bucket]:
        """(rows, positions) of the captured steps."""
        return self._step.buckets

    @property
    def capture_count(self) -> int:
        """Graphs, or their twins, made so far."""
        return self._step.capture_count + self._prompt.capture_count

    def capture(self) -> None:
        """Every bucket of both passes; the one time that anything is captured."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.default_stream(self.device))  # what filled weights and tables
        with self._on_stream():
            self._step.capture()
            self._prompt.capture()

    def execute(self, plan: StepPlan) -> list[Frame]:
        return self.launch(plan)()

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> Callable[[], list[Frame]]:
        """Queue everything; the host goes on at once, and waits where it calls what it was given."""
        with self._on_stream():
            for fill in plan.fills:
                self._read(fill.rows, fill.vector, fill.pages, 0)
            for sequence in plan.prefills:
                self._open(sequence)
            if not plan.sequences:
                return list
            bucket, batch = self._inputs(plan.sequences)
            codes = self._step(bucket, batch)
            return self._outgoing(codes, len(plan.sequences))

    def _outgoing(self, codes: Tensor, count: int) -> Callable[[], list[Frame]]:
        """Copied behind the step and waited for with an event: the one point where the host waits for the device."""
        kept = self._codes[:count]
        kept.copy_(codes[:count], non_blocking=True)
        arrived = None
        if self.stream is not None:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self.stream)

        def frames() -> list[Frame]:
            if arrived is not None:
                arrived.synchronize()
            return [tuple(row) for row in kept.tolist()]

        return frames

    def _inputs(self, sequences: Rows[Sequence]) -> tuple[Bucket, StepInputs]:
        """What each row reads next, padded to the smallest bucket with room."""
        last = [sequence.position + sequence.next_row_count() - 1 for sequence in sequences]
        bucket = self._step.bucket_for((len(sequences), max(last) + 1))
        batch = self._padded_step(bucket)
        columns, table = batch.columns.numpy(), batch.table.numpy()
        for row, (sequence, position) in enumerate(zip(sequences, last, strict=True)):
            numbers = sequence.pages.numbers
            text = sequence.next_text() if sequence.prefilled else sequence.prompt_rows()[-1].text
            target = numbers[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
            masked = sequence.eos_masked()
            columns[:, row] = (sequence.slot, text, position, target, sequence.frame_count, masked)
            table[row, : len(numbers)] = numbers[: table.shape[1]]
        return bucket, StepInputs(self._outbound(batch.columns), self._outbound(batch.table))

    def _open(self, sequence: Sequence) -> None:
        """The slot as its next tenant begins: nothing seen, and "last said" what the prompt's last row reads."""
        rows = sequence.prompt_rows()
        if sequence.copy is not None:
            copy = sequence.copy
            target = sequence.pages.numbers[copy.place]
            self.pool.copy(copy.source * PAGE_SIZE, target * PAGE_SIZE, copy.row_count)
        if len(rows) > 1:
            self._read(rows[:-1], sequence.speaker_vector, sequence.pages, sequence.position)
        slot, slots = sequence.slot, self.slots
        slots.seen[slot] = False
        resumed = [frame[0] for frame in sequence.prompt.resumed]
        if resumed:
            slots.seen[slot].index_fill_(0, self._given(resumed), True)
        slots.codes[slot] = self._given(self._codes_of(rows[-1].codec))
        slots.settings[slot].copy_(self._outbound(torch.tensor(_settings(sequence.sampling))), non_blocking=True)
        slots.seeds[slot : slot + 1] = self._given([_signed(sequence.sampling.seed)])

    def _read(self, rows: Rows[PromptRow], vector: tuple[float, ...] | None, pages: Pages, first: int) -> None:
        """Keys and values of these rows, which stand from `first` on, into `pages`; nobody else's rows are with them,
        so that their bits depend on nobody."""
        most = self._prompt.buckets[-1][0]
        for begin in range(0, len(rows), most):
            self._read_part(rows[begin : begin + most], vector, pages, first + begin)

    def _read_part(self, rows: Rows[PromptRow], vector: tuple[float, ...] | None, pages: Pages, first: int) -> None:
        bucket = self._prompt.bucket_for((len(rows), first + len(rows)))
        batch = self._padded_prompt(bucket)
        columns, codes = batch.columns.numpy(), batch.codes.numpy()
        for index, row in enumerate(rows):
            page, inner = divmod(first + index, PAGE_SIZE)
            speaking = row.codec == SPEAKER
            columns[:, index] = (row.text, first + index, pages.numbers[page] * PAGE_SIZE + inner, speaking)
            codes[index] = self._codes_of(None if speaking else row.codec)
        numbers = pages.numbers[: batch.table.shape[1]]
        batch.table[0, : len(numbers)] = torch.tensor(numbers)
        if vector is not None:
            batch.vector.copy_(torch.tensor(vector))
        parts = (batch.columns, batch.codes, batch.table, batch.vector)
        self._prompt(bucket, PromptInputs(*map(self._outbound, parts)))

    def _codes_of(self, part: CodecPart) -> list[int]:
        """What a row reads beside its text, as codes; a control id stands in codebook 0, whose table holds both."""
        assert part != SPEAKER, "a vector is no code"
        if isinstance(part, tuple):
            return list(part)
        return [NO_CODE if part is None else int(part)] + [NO_CODE] * (self._config.codebook_count - 1)

    # Static inputs

    def _padded_step(self, bucket: Bucket) -> StepInputs:
        count, context = bucket
        idle = self.page_count * PAGE_SIZE
        padding = torch.tensor([self._padding, self._config.tts_pad, 0, idle, 0, 1])
        table = torch.full((count, _page_count(context)), self.page_count)
        return StepInputs(padding[:, None].repeat(1, count), table)

    def _padded_prompt(self, bucket: Bucket) -> PromptInputs:
        count, context = bucket
        padding = torch.tensor([self._config.tts_pad, 0, self.page_count * PAGE_SIZE, 0])
        return PromptInputs(
            padding[:, None].repeat(1, count),
            torch.full((count, self._config.codebook_count), NO_CODE),
            torch.full((1, _page_count(context)), self.page_count),
            torch.zeros(self._config.talker.hidden_size),
        )

    def _empty_step(self, bucket: Bucket) -> StepInputs:
        batch = self._padded_step(bucket)
        return StepInputs(batch.columns.to(self.device), batch.table.to(self.device))

    def _empty_prompt(self, bucket: Bucket) -> PromptInputs:
        batch = self._padded_prompt(bucket)
        return PromptInputs(*(part.to(self.device) for part in (batch.columns, batch.codes, batch.table, batch.vector)))

    def _given(self, values: list[int]) -> Tensor:
        return self._outbound(torch.tensor(values)).to(self.device, non_blocking=True)

    def _outbound(self, tensor: Tensor) -> Tensor:
        """In memory that the device reads by itself; a fresh piece each time, for the last one may still be on its
        way."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def step_kernels(asked: StepArithmetic, weights: ModelWeights, slot_count: int, *, deterministic: bool) -> StepKernels:
    """Triton's on CUDA where it is installed and nobody asked for torch's."""
    table = weights.frame_table
    if asked == "triton" or (asked == "auto" and table.device.type == "cuda" and find_spec("triton") is not None):
        from services.tts_lm.fused.kernels import TritonStepKernels

        return TritonStepKernels(table.dtype, invariant=deterministic)
    row_wise = deterministic and not rows_are_equal(weights, slot_count)
    return TorchStepKernels(table.dtype, row_wise=row_wise)


def _between(device: torch.device) -> torch.cuda.Stream:
    """A stream that goes before the codec's ordinary steps and after its first frames, where both share a device."""
    least, greatest = torch.cuda.Stream.priority_range()  # type: ignore[call-arg]
    return torch.cuda.Stream(device, priority=(least + greatest) // 2)  # type: ignore[no-untyped-call]


def batch_sizes(largest: int) -> list[int]:
    """1, 2, 4 … and the largest."""
    sizes = [1]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    return sizes if largest == 1 else [*sizes, largest]


def context_sizes(longest: int) -> list[int]:
    """Positions a bucket has pages for: 256, 1024, 4096 … and the longest utterance."""
    sizes = [FIRST_CONTEXT]
    while sizes[-1] < longest:
        sizes.append(sizes[-1] * CONTEXT_STEP)
    return [*sizes[:-1], max(longest, 1)]


def _page_count(context: int) -> int:
    return -(-context // PAGE_SIZE)


def _settings(sampling: ResolvedSampling) -> list[float]:
    s = sampling
    talker = (s.greedy, s.temperature, s.top_k, s.top_p)
    predictor = (s.predictor_greedy, s.predictor_temperature, s.predictor_top_k, s.predictor_top_p)
    return [float(value) for value in (*talker, *predictor, s.repetition_penalty)]


def _signed(seed: int) -> int:
    """A 64-bit word as torch's int64 holds it."""
    word = seed & 0xFFFFFFFFFFFFFFFF
    return word - (1 << 64) if word >> 63 else word
