"""What the sections share: the report, the machine's rates, the checkpoints, and one pair of engines at a time."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.on_gpu.scale import Scale
from bench.on_gpu.speech import Pair, endless, open_pair, speak
from bench.report import Report
from bench.roofline import Machine
from cli.checkpoint import weights
from cli.checkpoint.random import write_random

QUICK_SEED = 0


@dataclass
class Suite:
    """`rates` are measured by the section `machine`, or when they are first asked for."""

    report: Report
    scale: Scale
    device: str
    scratch: Path
    _models: dict[str, Path] = field(default_factory=dict)
    _pair: tuple[str, Pair] | None = None
    _rates: Machine | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def item_bytes(self) -> int:
        """Of a talker's weight, as the engine chooses its dtype by itself."""
        return 2 if self.on_gpu else 4

    def rates(self) -> Machine:
        if self._rates is None:
            from bench.roofline import measure_gpu, measure_machine

            self._rates = measure_gpu(self.device) if self.on_gpu else measure_machine(torch.get_num_threads())
        return self._rates

    def model(self, size: str) -> Path:
        """A checkpoint with random weights of that size, written once."""
        like = self.scale.sizes[size]
        if like not in self._models:
            began_s = time.perf_counter()
            directory = self.scratch / like
            write_random(directory, like=like, type="custom_voice", seed=QUICK_SEED, values=weights.quick_values)
            self._models[like] = directory
            self.report.value("checkpoint_written_s", time.perf_counter() - began_s, size=size)
        return self._models[like]

    async def pair(self, size: str) -> Pair:
        """Both engines over it, READY, warm and with nobody in them; another pair is closed for it."""
        if self._pair is not None and self._pair[0] == size:
            await self._pair[1].all_free()
            return self._pair[1]
        await self.close_pair()
        scale = self.scale
        pair = await open_pair(self.model(size), self.device, scale.slots, scale.positions)
        for name, seconds in pair.ready_s.items():
            self.report.value("ready_s", seconds, size=size, stage=name)
        if self.on_gpu:
            self.report.value("memory_bytes", torch.cuda.memory_reserved(), size=size)
        for line, _ in zip(endless(1, 16), range(3), strict=False):
            await speak(pair, line)
        gc.collect()
        gc.freeze()  # as a service does when it is READY
        self._pair = (size, pair)
        return pair

    async def close_pair(self) -> None:
        if self._pair is not None:
            await self._pair[1].close()
            self._pair = None
            gc.unfreeze()
            gc.collect()
            if self.on_gpu:
                torch.cuda.empty_cache()

    def floor(self, name: str, seconds: float, byte_count: float, operation_count: float, **where: Any) -> None:
        """What the machine's rates allow at best, and how far from it `seconds` is."""
        floor_s = self.rates().floor_s(byte_count, operation_count)
        self.report.value(f"{name}_bytes", byte_count, **where)
        self.report.value(f"{name}_operations", operation_count, **where)
        self.report.value(f"{name}_floor_s", floor_s, **where)
        self.report.value(f"{name}_over_floor", seconds / floor_s, **where)
