"""Owns the device: weights, the state of every slot, and one step at a time. Used by one thread only.

Rows of the state, in order: live slots, the rows the engine keeps states in (parked, primed), and one that the padding
of a batch writes to. Refuses to know utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.errors import Broken
from common.graphs import Bucket, Buffers, GraphedStep
from services.codec.model.config import CodecConfig
from services.codec.model.weights import load_decoder
from services.codec.schedule import Buckets, Row

Samples = npt.NDArray[np.float32]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
CPU_STEP_FRAMES = 4
"""Rows × frames of one step on a CPU. Real dimensions, one core of an AVX-512 EPYC, float32: 45 ms for one frame, 121
for four, 226 for eight. Beyond four a frame gets 6 % cheaper, and a stop or somebody's first frame waits longer."""
SMALL_DECODER_DIM = 512
"""Below it a second core only costs: 9 ms a frame at a width of 192 became 100 on two cores that others used too."""


@dataclass
class StepBatch(Buffers):
    """One step's static inputs: codes [B, T, Q] int64, active [B] int64, fresh [B] bool."""

    codes: Tensor
    active: Tensor
    fresh: Tensor


class Runner:
    """Decodes rows of codes in place of their slots' states; on CUDA by replaying a graph captured per bucket."""

    def __init__(
        self,
        model_dir: Path,
        *,
        device: str,
        dtype: str,
        row_count: int,
        max_batch: int,
        max_frames: int,
        thread_count: int = 0,
    ) -> None:
        if dtype not in DTYPES:
            raise Broken(f"The codec runs in {', '.join(DTYPES)}, not {dtype}.")
        self.config = CodecConfig.read(model_dir)
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # its default rounds convolutions to 10 bits: 1e-3 instead of 1e-6
        if thread_count or self.config.decoder.decoder_dim < SMALL_DECODER_DIM:
            torch.set_num_threads(thread_count or 1)
        self._decoder = load_decoder(self.config, device=self._device, dtype=DTYPES[dtype])
        self._padding_row = row_count
        on_cpu = self._device.type == "cpu"
        self.buckets = Buckets(
            batch_sizes=powers_of_two(max_batch),
            frame_sizes=powers_of_two(min(max_frames, CPU_STEP_FRAMES) if on_cpu else max_frames),
            step_frames=CPU_STEP_FRAMES if on_cpu else max_batch * max_frames,
            pad_rows=not on_cpu,
        )
        self._state = self._decoder.new_state(row_count + 1, self.buckets.frame_sizes[-1])
        self._step = GraphedStep(self._run, self._allocate, self.buckets.shapes(), self._device)

    def warm(self) -> None:
        """Run every shape a step can have: captures graphs, packs weights, so that no first utterance pays."""
        self._step.capture()

    def decode(self, rows: Sequence[Row]) -> list[Samples]:
        """Advance each row by its codes (equally many frames) → float32 samples in [−1, 1], one array per row."""
        bucket = self._bucket(len(rows), len(rows[0].codes))
        padding = bucket[0] - len(rows)
        codes = [row.codes for row in rows]
        batch = StepBatch(
            codes=torch.tensor([*codes, *codes[:1] * padding], dtype=torch.int64),
            active=torch.tensor([*(row.slot for row in rows), *[self._padding_row] * padding]),
            fresh=torch.tensor([*(row.fresh for row in rows), *[True] * padding]),
        )
        samples = self._step(bucket, batch)
        return list(samples[: len(rows)].to("cpu", torch.float32).numpy())

    def copy_slot(self, source: int, target: int) -> None:
        self._state.copy_slot(source, target)

    def state_byte_count(self) -> int:
        return self._state.byte_count()

    def _run(self, batch: StepBatch) -> Tensor:
        return self._decoder(batch.codes, self._state, batch.active, batch.fresh)

    def _allocate(self, bucket: Bucket) -> StepBatch:
        rows, frames = bucket
        quantizers = self.config.decoder.num_quantizers
        return StepBatch(
            codes=torch.zeros((rows, frames, quantizers), dtype=torch.int64, device=self._device),
            active=torch.full((rows,), self._padding_row, device=self._device),
            fresh=torch.ones(rows, dtype=torch.bool, device=self._device),
        )

    def _bucket(self, rows: int, frames: int) -> Bucket:
        """The captured shape for these rows; only a batch may be padded, never the frames."""
        sizes = self.buckets.batch_sizes
        return (min(size for size in sizes if size >= rows) if self.buckets.pad_rows else rows), frames


def powers_of_two(largest: int) -> tuple[int, ...]:
    """1, 2, 4 … not beyond `largest`."""
    sizes = [1]
    while sizes[-1] * 2 <= largest:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes)
