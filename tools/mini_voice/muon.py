"""Muon: momentum whose matrices are made orthogonal before they are applied, for hidden matrices only.

Matrices of one shape are treated together and in bfloat16, which is what makes it affordable on a CPU.
Method: Keller Jordan et al., 2024, with its quintic Newton–Schulz coefficients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """For 2-D parameters; `lr` is on AdamW's scale (updates of RMS 0.2)."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.05
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            self._step_group(group)

    def _step_group(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for shape, parameters in by_shape.items():
            momenta = []
            for parameter in parameters:
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                assert parameter.grad is not None
                momenta.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
            updates = orthogonal(torch.stack(momenta)) * (0.2 * max(shape) ** 0.5)
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["decay"]).sub_(update, alpha=group["lr"])


def orthogonal(matrices: Tensor) -> Tensor:
    """[N, R, C] → about the nearest matrices with singular values 1."""
    turned = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if turned else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(torch.bfloat16)
    for _ in range(_ROUNDS):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    found: Tensor = (x.transpose(1, 2) if turned else x).to(matrices)
    return found
