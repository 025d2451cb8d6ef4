"""Memory and utilisation of the GPUs that this process can see, asked of the driver's own library when measures are
read. Where there is no driver there are no GPUs, and nothing to install."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from common.telemetry import names
from common.telemetry.names import Attribute

_LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    """nvmlUtilization_t, in percent of the driver's last sampling period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass(frozen=True)
class GpuReading:
    """One device now; `utilization` is the share of time in which a kernel ran."""

    index: int
    memory_used_bytes: int
    memory_total_bytes: int
    utilization: float


class Gpus:
    """The devices of the driver behind `library`, which has NVML's functions."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handles: list[ctypes.c_void_p] = []
        count = ctypes.c_uint()
        if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if not library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)):
                self._handles.append(handle)

    def __len__(self) -> int:
        return len(self._handles)

    def read(self) -> list[GpuReading]:
        """All devices that answer."""
        memory, utilization, found = _Memory(), _Utilization(), []
        for index, handle in enumerate(self._handles):
            if self._library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
                continue
            if self._library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(utilization)):
                utilization.gpu = 0
            found.append(GpuReading(index, memory.used, memory.total, utilization.gpu / 100))
        return found


def find_gpus() -> Gpus | None:
    """The GPUs of this machine, None without a driver."""
    try:
        gpus = Gpus(ctypes.CDLL(_LIBRARY))
    except OSError:
        return None
    return gpus if len(gpus) else None


def tell_gpus(meter: Meter, gpus: Gpus | None) -> None:
    """Gauges of those GPUs, read when somebody looks."""
    if gpus is None:
        return

    def of(value: Callable[[GpuReading], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(value(it), {Attribute.HARDWARE_ID.value: f"{it.index}"}) for it in gpus.read()]

    for name, unit, description, value in (
        (names.GPU_MEMORY_USAGE, "By", "Memory of a GPU in use", attrgetter("memory_used_bytes")),
        (names.GPU_MEMORY_LIMIT, "By", "Memory of a GPU", attrgetter("memory_total_bytes")),
        (names.GPU_UTILIZATION, "1", "Share of time in which a GPU ran a kernel", attrgetter("utilization")),
    ):
        meter.create_observable_gauge(name, [of(value)], unit, description)
