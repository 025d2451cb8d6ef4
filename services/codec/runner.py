"""Owns the device: weights, the state of every slot, and one step at a time. Used by one thread only.

Rows of the state, in order: live slots, the rows the engine keeps states in (parked, primed), and one that the padding
of a batch writes to. Refuses to know utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from common.errors import Broken
from services.codec.model.config import CodecConfig
from services.codec.model.weights import load_decoder
from services.codec.schedule import Buckets, Row

Samples = npt.NDArray[np.float32]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
CPU_STEP_FRAMES = 8
"""Rows × frames of one step on a CPU: beyond it batching gains nothing and a stop waits longer."""


class Runner:
    """Decodes rows of codes in place of their slots' states."""

    def __init__(
        self, model_dir: Path, *, device: str, dtype: str, row_count: int, max_batch: int, max_frames: int
    ) -> None:
        if dtype not in DTYPES:
            raise Broken(f"the codec runs in {', '.join(DTYPES)}, not {dtype}")
        self.config = CodecConfig.read(model_dir)
        self._device = torch.device(device)
        self._decoder = load_decoder(self.config, device=self._device, dtype=DTYPES[dtype])
        self._padding_row = row_count
        on_cpu = self._device.type == "cpu"
        self.buckets = Buckets(
            batch_sizes=powers_of_two(max_batch),
            frame_sizes=powers_of_two(max_frames),
            step_frames=max(CPU_STEP_FRAMES, max_frames) if on_cpu else max_batch * max_frames,
            pad_rows=not on_cpu,
        )
        self._state = self._decoder.new_state(row_count + 1, self.buckets.frame_sizes[-1])

    def warm(self) -> None:
        """Run every shape a step can have once: packs weights, fills caches, so that no first utterance pays."""
        frame = (0,) * self.config.decoder.num_quantizers
        for batch, frames in self.buckets.shapes():
            self.decode([Row(self._padding_row, True, (frame,) * frames)] * batch)

    def decode(self, rows: Sequence[Row]) -> list[Samples]:
        """Advance each row by its codes (equally many frames) → float32 samples in [−1, 1], one array per row."""
        padding = self._padding(len(rows))
        frames = [row.codes for row in rows]
        codes = torch.tensor([*frames, *[frames[0]] * padding], dtype=torch.int64)
        slots = torch.tensor([*(row.slot for row in rows), *[self._padding_row] * padding])
        fresh = torch.tensor([*(row.fresh for row in rows), *[True] * padding])
        samples = self._decoder(
            codes.to(self._device, non_blocking=True),
            self._state,
            slots.to(self._device, non_blocking=True),
            fresh.to(self._device, non_blocking=True),
        )
        return list(samples[: len(rows)].to("cpu", torch.float32).numpy())

    def copy_slot(self, source: int, target: int) -> None:
        self._state.copy_slot(source, target)

    def state_byte_count(self) -> int:
        return self._state.byte_count()

    def _padding(self, count: int) -> int:
        if not self.buckets.pad_rows:
            return 0
        return min(size for size in self.buckets.batch_sizes if size >= count) - count


def powers_of_two(largest: int) -> tuple[int, ...]:
    """1, 2, 4 … not beyond `largest`."""
    sizes = [1]
    while sizes[-1] * 2 <= largest:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes)
