"""The layers of talker and code predictor as compiled CPU kernels."""

from pathlib import Path

from common.native import Kernels

KERNELS = Kernels("tts_lm", Path(__file__).parent, "stack.cpp")
