"""The codec's activation as a compiled CPU kernel."""

from pathlib import Path

from common.native import Kernels

KERNELS = Kernels("codec", Path(__file__).parent, "snake.cpp")
