"""Runs inside the reference environment: qwen-tts on one checkpoint, its codes, logits and hidden states into one file.

`python -m tools.reference.run_talker CHECKPOINT_DIRECTORY CASES OUT.npz` with CASES `tiny` or `real`; started by
talker.py, which knows where the environment is. Nothing of the project but the case list is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qwen_tts import Qwen3TTSModel
from qwen_tts.inference.qwen3_tts_model import VoiceClonePromptItem

from tools.reference.talker_cases import CASES, REAL_CASES, TEXTS, Case, Line

LOGIT_FRAMES = 3


class Recorder:
    """Raw logits and their inputs, by hooks on the heads, and the codes of `generate` before any audio is made."""

    def __init__(self, model: Any) -> None:
        self.hidden: list[torch.Tensor] = []
        self.talker: list[torch.Tensor] = []
        self.predictor: list[torch.Tensor] = []
        self.codes: list[torch.Tensor] = []
        self._model = model
        model.talker.codec_head.register_forward_hook(self._on_talker)
        for head in model.talker.code_predictor.lm_head:
            head.register_forward_hook(self._on_predictor)
        self._generate = model.generate
        model.generate = self._capture

    def _on_talker(self, _: Any, inputs: Any, output: torch.Tensor) -> None:
        self.hidden.append(inputs[0][:, -1].float().clone())
        self.talker.append(output[:, -1].float().clone())

    def _on_predictor(self, _: Any, __: Any, output: torch.Tensor) -> None:
        self.predictor.append(output[:, -1].float().clone())

    def _capture(self, **arguments: Any) -> Any:
        self.codes, _ = self._generate(**arguments)
        raise Captured


class Captured(Exception):
    """Raised once codes are known: decoding them is another model's reference."""


def clone_items(lines: tuple[Line, ...], config: Any, name: str) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Reference codes and speaker vectors drawn from the case's name, and what to store of them."""
    talker = config.talker_config
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    items, stored = [], {}
    for i, line in enumerate(lines):
        vector = torch.randn(talker.hidden_size, generator=generator)
        shape = (line.reference_frames, talker.num_code_groups)
        codes = torch.randint(talker.code_predictor_config.vocab_size, shape, generator=generator)
        alone = line.reference_frames == 0
        items.append(
            VoiceClonePromptItem(None if alone else codes, vector, alone, not alone, line.reference_text or None)
        )
        stored[f"vector{i}"] = vector.numpy()
        stored[f"reference{i}"] = codes.numpy().astype(np.int16)
    return items, stored


def run_case(speech: Any, case: Case) -> dict[str, np.ndarray]:
    """Greedy codes of every line, and the numbers behind them."""
    recorder = Recorder(speech.model)
    lines = case.lines
    arguments: dict[str, Any] = {
        "text": [line.text for line in lines],
        "language": [line.language for line in lines],
        "non_streaming_mode": case.layout == "whole",
        "do_sample": False,
        "subtalker_dosample": False,
        "max_new_tokens": case.frames + 1,
    }
    stored: dict[str, np.ndarray] = {}
    kind = speech.model.tts_model_type
    if kind == "base":
        arguments["voice_clone_prompt"], stored = clone_items(lines, speech.model.config, case.name)
        call = speech.generate_voice_clone
    else:
        arguments["instruct"] = [line.instruct for line in lines]
        call = speech.generate_custom_voice if kind == "custom_voice" else speech.generate_voice_design
        if kind == "custom_voice":
            arguments["speaker"] = [line.voice for line in lines]
    try:
        call(**arguments)
    except Captured:
        pass
    finally:
        speech.model.generate = recorder._generate
        for module in [speech.model.talker.codec_head, *speech.model.talker.code_predictor.lm_head]:
            module._forward_hooks.clear()
    return stored | numbers(recorder, speech.model.config.talker_config)


def numbers(recorder: Recorder, config: Any) -> dict[str, np.ndarray]:
    """[frames, lines, …]; talker logits of the ids that can be sampled, predictor logits of the first frames."""
    keep = [*range(config.vocab_size - 1024), config.codec_eos_token_id]
    books = config.num_code_groups - 1
    predictor = torch.stack(recorder.predictor).unflatten(0, (-1, books))
    stored = {
        "hidden": torch.stack(recorder.hidden).numpy(),
        "talker_logits": torch.stack(recorder.talker)[:LOGIT_FRAMES, :, keep].numpy(),
        "predictor_logits": predictor[: LOGIT_FRAMES - 1].numpy(),
    }
    return stored | {f"codes{i}": codes.numpy().astype(np.int16) for i, codes in enumerate(recorder.codes)}


def digest(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the real dimensions: codes, and every 32nd value, so that the file stays small."""
    thin = {k: np.ascontiguousarray(v[..., ::32]) for k, v in numbers.items() if k.endswith(("hidden", "logits"))}
    return numbers | thin


def main() -> int:
    directory, which, out = sys.argv[1:4]
    torch.set_grad_enabled(False)
    speech = Qwen3TTSModel.from_pretrained(directory, dtype=torch.float32, device_map="cpu")
    cases = REAL_CASES if which == "real" else CASES[speech.model.tts_model_type]
    stored: dict[str, np.ndarray] = {}
    for case in cases:
        result = run_case(speech, case)
        result = digest(result) if which == "real" else result
        stored |= {f"{case.name}/{key}": value for key, value in result.items()}
        print(
            f"{Path(directory).name} {case.name}: {[len(result[f'codes{i}']) for i in range(len(case.lines))]} frames",
            flush=True,
        )
    for i, text in enumerate(TEXTS):
        wrapped = f"<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n"
        ids = speech.processor(text=wrapped, return_tensors="pt", padding=True)["input_ids"][0, 3:-5]
        stored[f"text/{i}"] = ids.numpy().astype(np.int32)
    np.savez_compressed(out, **stored)
    import qwen_tts  # noqa: F401
    import transformers

    Path(out).with_suffix(".json").write_text(
        json.dumps({"torch": torch.__version__, "transformers": transformers.__version__})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
