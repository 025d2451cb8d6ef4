"""Runs inside the reference environment: seconds per frame of qwen-tts, one utterance per line (its seed) on stdin.

`python -m tools.reference.time_talker DIRECTORY DTYPE FRAMES`; prints a JSON list of seconds per line read. A frame is
everything between two calls of codec_head: sampling, the code predictor, one talker step. Started by bench/tts_lm.py.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

import torch
from qwen_tts import Qwen3TTSModel

TEXT = "The train leaves at seven, so we should be at the station before half past six, and not a minute later."


def main() -> int:
    directory, dtype, frames = sys.argv[1:4]
    torch.set_grad_enabled(False)
    speech = Qwen3TTSModel.from_pretrained(directory, dtype=getattr(torch, dtype), device_map="cpu")
    marks: list[float] = []
    speech.model.talker.codec_head.register_forward_hook(lambda *_: marks.append(time.perf_counter()))

    def decoded(*_: Any, **__: Any) -> Any:
        return [], 24000  # audio is another model's figure

    speech.model.speech_tokenizer.decode = decoded
    # Random weights end speech at any frame; a flat end-of-speech row keeps both sides at the same number of frames.
    speech.model.talker.codec_head.weight[speech.model.config.talker_config.codec_eos_token_id] = 0
    print("ready", flush=True)
    for line in sys.stdin:
        torch.manual_seed(int(line.split()[0]))
        marks.clear()
        speech.generate_custom_voice(TEXT, "ryan", "English", non_streaming_mode=False, max_new_tokens=int(frames) + 1)
        print(json.dumps([b - a for a, b in itertools.pairwise(marks)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
