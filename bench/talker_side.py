"""Our side of `bench.tts_lm`: a process that speaks when asked, straight on the runner, and times each step.

`python -m bench.talker_side MODEL DTYPE FRAMES KERNELS THREADS LOGITS`; each line of stdin is `SEED BATCH` and is
answered with the seconds of every step after the prompt. Before, it says once what a frame reads and computes, and
writes logits under teacher forcing to LOGITS unless that is `-`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from bench.roofline import talker_frame
from common.slots import Lease
from services.tts_lm.admission import House, admit
from services.tts_lm.kernels import native_library
from services.tts_lm.model.checkpoint import locate
from services.tts_lm.model.config import load_config
from services.tts_lm.model.kv_cache import Span
from services.tts_lm.model.tokenizer import load_tokenizer
from services.tts_lm.model.weights import load_model_weights
from services.tts_lm.pages import PageAllocator
from services.tts_lm.runner import TorchRunner
from services.tts_lm.scheduler import StepPlan
from services.tts_lm.types import SamplingParams, UtteranceRequest

TEXT = "The train leaves at seven, so we should be at the station before half past six, and not a minute later."
LARGEST_BATCH = 4
FORCED_FRAMES = 6


class Voice:
    """A model on a runner of its own."""

    def __init__(self, model: str, dtype: str, frames: int, kernels: str, threads: int) -> None:
        directory = locate(model)
        self.config, self.tokenizer, self.frames = load_config(directory), load_tokenizer(directory), frames
        self.weights = load_model_weights(directory, self.config, dtype, torch.device("cpu"))
        library = native_library(self.config) if kernels == "native" else None
        if kernels == "native" and library is None:
            raise SystemExit("the native kernels are not built: voicemesh tune --build-only")
        torch.set_num_threads(1 if library else threads)
        if library:
            library.set_threads(threads)
        self.runner = TorchRunner(
            self.weights,
            self.config,
            slot_count=LARGEST_BATCH,
            position_count=LARGEST_BATCH * (frames + 128),
            max_positions=frames + 128,
            library=library,
        )

    def sequence(self, slot: int, seed: int) -> Any:
        """The text by the first voice; text is still to come, so that end of speech stays masked to the last frame."""
        request = UtteranceRequest(language="english", sampling=SamplingParams(seed=seed), max_frames=self.frames + 1)
        house = House(self.frames + 64, self.frames + 1)
        sequence = admit(request, self.config, self.tokenizer, house).sequence(Lease(slot, 1))
        ids = self.tokenizer.target(TEXT)
        sequence.script.feed((ids * (self.frames // len(ids) + 2))[: self.frames + 2])
        return sequence

    def speak(self, seed: int, batch: int) -> list[float]:
        """Seconds of each step with `batch` rows, prompts left out."""
        allocator = PageAllocator(self.runner.page_count, self.runner.page_size)
        sequences = [self.sequence(slot, seed * LARGEST_BATCH + slot) for slot in range(batch)]
        times: list[float] = []
        while sequences[0].frame_count < self.frames:
            prefilled = sequences[0].prefilled
            rows = [s.next_row_count() for s in sequences]
            for s, count in zip(sequences, rows, strict=True):
                allocator.grow(s.pages, s.position + count)
            plan = StepPlan(steps=tuple(sequences)) if prefilled else StepPlan(prefills=tuple(sequences))
            began = time.perf_counter()
            spoken = self.runner.execute(plan)
            times += [time.perf_counter() - began] if prefilled else []
            for s, count, codes in zip(sequences, rows, spoken, strict=True):
                s.advance(count)
                s.sampled(codes)
                s.end = None
                s.take_packet(pausing=True)
        return times

    @torch.inference_mode()
    def forced_logits(self) -> dict[str, np.ndarray]:
        """Raw logits of talker [F, C] and predictor [F, Q − 1, V] when random frames, the same for all, are spoken."""
        runner, talker = self.runner, self.runner.talker
        generator = torch.Generator().manual_seed(0)
        shape = (FORCED_FRAMES, self.config.codebook_count)
        frames = torch.randint(self.config.codebook_size, shape, generator=generator)
        prompt = self.sequence(0, 0).prompt_rows()
        rows, length, talked, predicted = runner.embed(prompt, None), len(prompt), [], []
        hidden = talker.prefill(rows, [Span(0, length)], [length], runner.pool)
        for i, frame in enumerate(frames):
            seen: list[torch.Tensor] = []

            def pick(
                codebook: int, logits: torch.Tensor, frame: torch.Tensor = frame, seen: Any = seen
            ) -> torch.Tensor:
                seen.append(logits[0].clone())
                return frame[codebook : codebook + 1]

            talked.append(talker.logits(hidden)[0].clone())
            runner.predictor.predict(hidden, frame[:1], pick)
            predicted.append(torch.stack(seen))
            row = talker.frame_rows(frame[None]) + runner.text.rows([self.config.tts_pad])
            hidden = talker.step(row, torch.tensor([length + i]), [Span(0, length + i + 1)], runner.pool)
        return {"talker": torch.stack(talked).numpy(), "predictor": torch.stack(predicted).numpy()}


def work(arguments: list[str]) -> None:
    model, dtype, frames, kernels, threads, logits = arguments
    torch.set_grad_enabled(False)
    voice = Voice(model, dtype, int(frames), kernels, int(threads))
    if logits != "-":
        np.savez(logits, **voice.forced_logits())
    print(json.dumps(asdict(talker_frame(voice.weights, voice.config, voice.frames // 2))), flush=True)
    print("ready", flush=True)
    for line in sys.stdin:
        seed, batch = map(int, line.split())
        print(json.dumps(voice.speak(seed, batch)), flush=True)


if __name__ == "__main__":
    work(sys.argv[1:])
