"""Compiles Triton kernels for an H200 where there is none: `python -m tests.ahead_of_time MODULE` compiles what that
module's `COMPILED` lists, and prints each kernel's name, its shared memory and whether its code uses tensor cores.

A process of its own, because a process that interprets kernels cannot compile them.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from typing import Any

TARGET = ("cuda", 90, 32)


@dataclass(frozen=True)
class Compiled:
    """A kernel with the types of its arguments (those not named are pointers to float32) and its constants."""

    kernel: str
    constants: dict[str, Any]
    types: dict[str, str] = field(default_factory=dict)
    options: dict[str, int] = field(default_factory=lambda: {"num_warps": 4})


def compile_for_target(kernel: Any, given: Compiled) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    types = {n: "constexpr" if n in given.constants else given.types.get(n, "*fp32") for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if types[n].startswith("*")}
    constants = {(names.index(n),): value for n, value in given.constants.items()}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget(*TARGET), options=given.options)


def main(module: str) -> None:
    for given in importlib.import_module(module).COMPILED:
        place, _, name = given.kernel.rpartition(".")
        made = compile_for_target(getattr(importlib.import_module(place), name), given)
        tensor_cores = "mma" in made.asm["ptx"]
        print(name, made.metadata.shared, "tensor cores" if tensor_cores else "no tensor cores", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
