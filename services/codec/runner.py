"""Owns the device: weights, the state of every slot, and the lanes that steps run in. Used by one thread only.

Rows of the state, in order: live slots, the rows the engine keeps states in (parked, primed), and one for each lane
that the padding of a batch writes to. Refuses to know utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from common.errors import Broken
from common.graphs import Bucket
from services.codec.lanes import Lane, Launched, RowOrder, StepBatch
from services.codec.model.config import CodecConfig
from services.codec.model.decoder import FusedSnake
from services.codec.model.weights import load_decoder
from services.codec.native import KERNELS
from services.codec.native.snake import NativeSnake
from services.codec.schedule import Buckets, Row
from services.codec.sound import Samples

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
CPU_STEP_FRAMES = 4
"""Rows × frames of one step on a CPU. Real dimensions, one core of an AVX-512 EPYC, float32: 45 ms for one frame, 121
for four, 226 for eight. Beyond four a frame gets 6 % cheaper, and a stop or somebody's first frame waits longer."""
GPU_STEP_FRAMES = 128
"""The same on a GPU, where a frame is 5 G operations and an H200 makes 67 T float32 ones a second at most: such a step
takes 10 ms at least, so whoever runs dry waits little longer, and its products are large enough to fill the device."""
FIRST_ROWS = 32
"""Of first frames in one step: more of them would make the first of a burst wait for the last."""
SMALL_DECODER_DIM = 512
"""Below it a second core only costs: 9 ms a frame at a width of 192 became 100 on two cores that others used too."""


class Runner:
    """Decodes rows of codes in place of their slots' states; on CUDA by replaying a graph captured per bucket.

    `buckets` are the shapes of ordinary steps, `first_buckets` those of steps of first frames, which run beside them;
    None on a CPU, where there is nothing to run beside.
    """

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
        compile_step: bool = False,
        eager: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise Broken(f"The codec runs in {', '.join(DTYPES)}, not {dtype}.")
        self.config = CodecConfig.read(model_dir)
        self._device = torch.device(device)
        on_cpu = self._device.type == "cpu"
        if not on_cpu:
            set_precision()
        if thread_count or self.config.decoder.decoder_dim < SMALL_DECODER_DIM:
            torch.set_num_threads(thread_count or 1)
        fused = None if compile_step else fused_snake(self._device, DTYPES[dtype])
        self._decoder = load_decoder(self.config, device=self._device, dtype=DTYPES[dtype], fused=fused)
        self.buckets = Buckets(
            batch_sizes=powers_of_two(max_batch),
            frame_sizes=powers_of_two(min(max_frames, CPU_STEP_FRAMES) if on_cpu else max_frames),
            step_frames=CPU_STEP_FRAMES if on_cpu else GPU_STEP_FRAMES,
            pad_rows=not on_cpu,
        )
        first_rows = min(max_batch, FIRST_ROWS)
        self.first_buckets = None if on_cpu else Buckets(powers_of_two(first_rows), (1,), first_rows, pad_rows=True)
        self._state = self._decoder.new_state(row_count + 2, self.buckets.frame_sizes[-1])
        self._step = self._compiled() if compile_step else self._run
        order = RowOrder()
        self._lane = self._open_lane(self.buckets, row_count, order, eager)
        self._first_lane = self._lane
        if self.first_buckets is not None:
            self._first_lane = self._open_lane(self.first_buckets, row_count + 1, order, eager, urgent=True)

    def warm(self) -> None:
        """Run every shape a step can have: captures graphs, packs weights, so that no first utterance pays."""
        self._lane.warm()
        if self._first_lane is not self._lane:
            self._first_lane.warm()

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The ordinary one, then that of first frames where it is another."""
        return (self._lane,) if self._first_lane is self._lane else (self._lane, self._first_lane)

    def launch(self, rows: Sequence[Row], *, first: bool = False) -> Launched:
        """Begin to advance each row by its codes (equally many frames). `first`: in the lane of first frames; no row
        may be in two steps that have not been waited for."""
        buckets = self.first_buckets if first else self.buckets
        lane = self._first_lane if first else self._lane
        return lane.launch(_bucket(buckets or self.buckets, len(rows), len(rows[0].codes)), rows)

    def decode(self, rows: Sequence[Row]) -> list[Samples]:
        """The same, waited for → float32 samples in [−1, 1], one array per row."""
        return self.launch(rows).samples()

    def copy_slot(self, source: int, target: int) -> None:
        """In the lane of first frames: what follows is one, and nobody waits for a step that does not concern them."""
        self._first_lane.run(lambda: self._state.copy_slot(source, target), (source, target))

    def state_byte_count(self) -> int:
        return self._state.byte_count()

    def _run(self, batch: StepBatch) -> Tensor:
        return self._decoder(batch.codes, self._state, batch.active, batch.fresh).to(torch.float32)

    def _compiled(self) -> Callable[[StepBatch], Tensor]:
        """The step by torch's compiler, shape by shape, each as one graph. By default it gives up at eight shapes."""
        first = self.first_buckets.shapes() if self.first_buckets else []
        torch._dynamo.config.recompile_limit = len(self.buckets.shapes()) + len(first) + 1
        compiled: Callable[[StepBatch], Tensor] = torch.compile(self._run, dynamic=False)
        return compiled

    def _open_lane(
        self, buckets: Buckets, padding_row: int, order: RowOrder, eager: bool, urgent: bool = False
    ) -> Lane:
        return Lane(
            self._step,
            buckets.shapes(),
            codebook_count=self.config.decoder.num_quantizers,
            padding_row=padding_row,
            samples_per_frame=self.config.samples_per_frame,
            device=self._device,
            order=order,
            urgent=urgent,
            eager=eager,
        )


def fused_snake(device: torch.device, dtype: torch.dtype) -> FusedSnake | None:
    """One kernel for the activation, where there is one: on a CPU the compiled one, for float32; else Triton's, which
    computes in float32, so not for float64. Not for a compiled step, which fuses what it finds."""
    if device.type == "cpu":
        library = KERNELS.built() if dtype == torch.float32 else None
        return NativeSnake(library) if library else None
    if dtype == torch.float64 or find_spec("triton") is None:
        return None
    from services.codec.model.fused import snake

    return snake


def set_precision() -> None:
    """Of the whole process, for torch knows no narrower one: float32 products are float32. The defaults round what a
    convolution multiplies to 10 bits (1e-3 in the sound instead of 1e-6). Algorithms are measured when a shape is first
    seen, which is before it is captured."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def _bucket(buckets: Buckets, rows: int, frames: int) -> Bucket:
    """The captured shape for these rows; only a batch may be padded, never the frames."""
    sizes = buckets.batch_sizes
    return (min(size for size in sizes if size >= rows) if buckets.pad_rows else rows), frames


def powers_of_two(largest: int) -> tuple[int, ...]:
    """1, 2, 4 … not beyond `largest`."""
    sizes = [1]
    while sizes[-1] * 2 <= largest:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes)
