"""What this machine can run and what is missing, as findings: a state, a sentence, and facts for programs.

Only what the project uses today is looked at. `missing` is said of needs alone; what is merely good to have is a note.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from cli.addresses import DEFAULT_PORTS
from cli.checkpoint import layout
from cli.checkpoint.inspect import codec_state_numbers, kv_bytes_per_position
from cli.checkpoint.official import codec_config, model_config
from cli.default_model import MINI
from cli.ports import is_free
from cli.sound import PLAYERS, player

State = Literal["ok", "note", "missing"]
_LEAST_PYTHON = (3, 11)
_SLOTS, _MINUTES = 8, 1
_FRAMES_PER_MINUTE = 750
_EXTRA_NAMES = {"vllm": "the vllm backend of the brain", "flash": "FlashAttention on GPUs", "livekit": "LiveKit rooms"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)


def examine() -> Iterator[Finding]:
    """Every finding in the order in which a person wants to read them."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python, _hardware, _packages, _torch, _extras, _mini, _ports, _sound,
    )  # fmt: skip
    for check in checks:
        yield from check()


def memory_bytes() -> tuple[int, int]:
    """Total and available memory, as this process may use it (a container's limit counts)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    total, available = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit
        return total, available
    return min(total, limit), min(available, limit - used)


def needed_bytes(size: Literal["0.6B", "1.7B"], weight_bytes: int) -> int:
    """Memory for talker and codec decoder with 8 utterances of a minute: weights, KV pool, codec states."""
    model, codec = model_config(size, "custom_voice"), codec_config(size)
    talker = layout.parameter_count(layout.model_tensors(model).values()) * weight_bytes
    decoder = layout.parameters_by_part(layout.codec_tensors(codec), layout.CODEC_PARTS)["codec decoder"] * 4
    kv = kv_bytes_per_position(model["talker_config"], weight_bytes) * _FRAMES_PER_MINUTE * _MINUTES
    return talker + decoder + _SLOTS * (kv + 4 * codec_state_numbers(codec["decoder_config"]))


def _python() -> Iterator[Finding]:
    found = sys.version_info[:2]
    least = ".".join(map(str, _LEAST_PYTHON))
    facts = {"version": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if found >= _LEAST_PYTHON and facts["system"] == "Linux":
        yield Finding("python", "ok", f"Python {facts['version']} on Linux {facts['machine']}.", facts)
    else:
        sentence = f"Python {facts['version']} on {facts['system']}: {least} or newer on Linux is needed."
        yield Finding("python", "missing", sentence, facts)


def _hardware() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    total, available = memory_bytes()
    disk = shutil.disk_usage(Path.home()).free
    facts = {"cores": cores, "memory_bytes": total, "available_bytes": available, "disk_free_bytes": disk}
    sentence = f"{cores} CPU cores, {_gb(available)} of {_gb(total)} memory free, {_gb(disk)} of disk free."
    yield Finding("hardware", "ok", sentence, facts)
    for size in ("0.6B", "1.7B"):
        needed = needed_bytes(size, weight_bytes=4)
        fits = needed < available
        sentence = f"{size} {'fits' if fits else 'does not fit'} in memory: float32 on CPU takes about {_gb(needed)}."
        yield Finding(f"{size}.cpu", "ok" if fits else "note", sentence, {"fits": fits, "needed_bytes": needed})


def _packages() -> Iterator[Finding]:
    wanted = [_name(line) for line in requires("voicemesh") or () if "extra ==" not in line] if _installed() else []
    if not wanted:
        yield Finding("packages", "missing", "Voicemesh is not installed: run `make setup`.")
        return
    absent = [name for name in wanted if _version(name) is None]
    facts = {"absent": absent, "versions": {name: _version(name) for name in wanted}}
    if absent:
        yield Finding("packages", "missing", f"Missing: {', '.join(absent)}; run `make setup`.", facts)
    else:
        yield Finding("packages", "ok", f"All {len(wanted)} needed packages are installed.", facts)
    if find_spec("voicemesh") is None or find_spec("voicemesh.stream") is None:
        yield Finding("protos", "missing", "The generated code of the protos is missing: run `make protos`.")


def _torch() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return  # told by _packages
    import torch

    facts: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda}
    if not torch.cuda.is_available():
        why = "built without CUDA" if torch.version.cuda is None else "finds no GPU"
        yield Finding("torch", "note", f"torch {torch.__version__} {why}: everything runs on the CPU.", facts)
        return
    yield Finding("torch", "ok", f"torch {torch.__version__} with CUDA {torch.version.cuda}.", facts)
    for index in range(torch.cuda.device_count()):
        yield from _gpu(index)


def _gpu(index: int) -> Iterator[Finding]:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    facts = {"name": name, "capability": list(capability), "free_bytes": free, "total_bytes": total}
    yield Finding(f"gpu{index}", "ok", f"GPU {index}: {name}, {_gb(free)} of {_gb(total)} free.", facts)
    for size in ("0.6B", "1.7B"):
        needed = needed_bytes(size, weight_bytes=2)
        fits = needed < free
        sentence = f"{size} {'fits' if fits else 'does not fit'} on GPU {index}: bfloat16 takes about {_gb(needed)}."
        yield Finding(f"{size}.gpu{index}", "ok" if fits else "note", sentence, {"fits": fits, "needed_bytes": needed})


def _extras() -> Iterator[Finding]:
    declared = requires("voicemesh") or () if _installed() else ()
    for extra, purpose in _EXTRA_NAMES.items():
        names = [_name(line) for line in declared if re.search(rf"extra == ['\"]{extra}['\"]", line)]
        absent = [name for name in names if _version(name) is None]
        facts = {"installed": bool(names) and not absent, "absent": absent}
        if facts["installed"]:
            yield Finding(f"extra.{extra}", "ok", f"The extra {extra} is installed, for {purpose}.", facts)
        else:
            yield Finding(f"extra.{extra}", "note", f"The extra {extra}, for {purpose}, is not installed.", facts)


def _mini() -> Iterator[Finding]:
    present = (MINI / "config.json").exists()
    if present:
        yield Finding("mini", "ok", f"Without --model, `serve` speaks with {MINI}.", {"present": True})
    else:
        sentence = f"There is no {MINI}: without --model, `serve` takes random weights, which sound like noise."
        yield Finding("mini", "note", sentence, {"present": False})


def _ports() -> Iterator[Finding]:
    taken = [f"{port} ({service})" for service, port in DEFAULT_PORTS.items() if not is_free("127.0.0.1", port)]
    if taken:
        sentence = f"Taken: {', '.join(taken)}. If that is not Voicemesh already, `serve --ports free` avoids them."
        yield Finding("ports", "note", sentence, {"taken": taken})
    else:
        yield Finding("ports", "ok", f"The default ports {', '.join(map(str, DEFAULT_PORTS.values()))} are free.")


def _sound() -> Iterator[Finding]:
    name = player()
    if name:
        yield Finding("sound", "ok", f"Speech can be heard here: {name} plays it.", {"player": name})
    else:
        sentence = f"Nothing can be heard here, for want of a sound device or of {', '.join(PLAYERS)}: use --out."
        yield Finding("sound", "note", sentence, {"player": None})


def _installed() -> bool:
    return _version("voicemesh") is not None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return match[0] if match else requirement


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
