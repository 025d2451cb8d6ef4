"""Processes of a mesh for a benchmark: started, addressed, watched (memory, their Prometheus page), ended."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from bench.report import ROOT

Labels = frozenset[tuple[str, str]]
Page = dict[tuple[str, Labels], float]


@dataclass
class Process:
    """One service: where it listens and how it does."""

    name: str
    pid: int
    address: str
    metrics_port: int
    ready: dict[str, str] = field(default_factory=dict)  # all that it said of itself

    def memory_mib(self) -> float:
        """Most memory it ever had at once."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"the system does not say what {self.name} uses")

    def cpu_s(self) -> float:
        """Seconds of processor time it has used: what others do to the machine hardly changes them."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def page(self) -> Page:
        """All its counters as they stand."""
        return await asyncio.to_thread(self._page)

    def _page(self) -> Page:
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20) as response:
            text = response.read().decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


@dataclass(frozen=True)
class Between:
    """What two readings of a page say of the time between them."""

    before: Page
    after: Page

    def grown(self, name: str, **labels: str) -> float:
        """By how much the counters of that name with these labels have grown, together."""
        wanted = labels.items()
        keys = [key for key in self.after if key[0] == name and wanted <= key[1]]
        return sum(self.after[key] - self.before.get(key, 0.0) for key in keys)

    def quantile(self, name: str, share: float) -> float | None:
        """From a histogram's buckets, a straight line within each; None when nothing was counted."""
        edges: dict[float, float] = {}
        for key, value in self.after.items():
            if key[0] == f"{name}_bucket":
                edge = float(dict(key[1])["le"])
                edges[edge] = edges.get(edge, 0.0) + value - self.before.get(key, 0.0)
        low, below = 0.0, 0.0
        total = max(edges.values(), default=0.0)
        for edge, count in sorted(edges.items()):
            if count >= share * total > below:
                return low if edge == float("inf") else low + (share * total - below) / (count - below) * (edge - low)
            low, below = edge, count
        return None


@dataclass
class Mesh:
    """What was started, by name; `gateways` is where callers go, each to the next."""

    gateways: list[str]
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def gateway(self) -> str:
        """The first one."""
        return self.gateways[0]


def free_port() -> int:
    """One that nobody has at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def process(name: str, module: str, *arguments: str) -> AsyncIterator[Process]:
    """`python -m module` with those arguments, READY."""
    port = free_port()
    async with _started(name, (module, *arguments, *_listening(port))) as child:
        ready = await _ready_line(child, name)
        yield Process(name, child.pid, ready["address"], port, ready)


@asynccontextmanager
async def speech_process(talker: Sequence[str], codec: Sequence[str]) -> AsyncIterator[tuple[Process, Process]]:
    """Both speech stages in one process, as `serve speech` has them on a GPU."""
    ports = {"tts_lm": free_port(), "codec": free_port()}
    flags = (*talker, *_listening(ports["tts_lm"]), "--", *codec, *_listening(ports["codec"]))
    async with _started("speech", ("cli.speech", *flags)) as child:
        lines = [await _ready_line(child, "speech") for _ in ports]
        found = {line["service"]: line["address"] for line in lines}
        tts_lm, decoder = (Process(name, child.pid, found[name], port) for name, port in ports.items())
        yield tts_lm, decoder


def _listening(metrics_port: int) -> tuple[str, ...]:
    return ("--port", "0", "--metrics-port", str(metrics_port), "--log-level", "ERROR")


@asynccontextmanager
async def _started(name: str, module: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *module),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")])},
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _ready_line(child: asyncio.subprocess.Process, name: str) -> dict[str, str]:
    assert child.stdout is not None
    line = await child.stdout.readline()
    if not line:
        raise SystemExit(f"{name} could not start: exit code {await child.wait()}")
    told: dict[str, str] = json.loads(line)
    return told


@asynccontextmanager
async def real_mesh(
    model: str,
    slots: int,
    talker: Sequence[str],
    codec: Sequence[str] = (),
    gateways: int = 1,
    speech_processes: int = 2,
) -> AsyncIterator[Mesh]:
    """tts_lm, codec and gateways over a checkpoint, each in a process of its own or the first two in one."""
    common = ("--model", model, "--slot-count", str(slots))
    speaking, sounding = (*common, *talker), (*common, "--no-encode", *codec)
    async with AsyncExitStack() as running:
        enter = running.enter_async_context
        if speech_processes == 1:
            tts_lm, decoder = await enter(speech_process(speaking, sounding))
        else:
            tts_lm = await enter(process("tts_lm", "services.tts_lm", *speaking))
            decoder = await enter(process("codec", "services.codec", *sounding))
        yield await enter(gateways_over(tts_lm, decoder, gateways))


@asynccontextmanager
async def toy_mesh(slots: int, step_s: float, gateways: int = 1) -> AsyncIterator[Mesh]:
    """The same over stages that compute nothing (tests/fakes.py)."""
    fake = ("--slots", str(slots))
    async with (
        process("tts_lm", "tests.fakes", "tts_lm", *fake, "--step-s", str(step_s)) as tts_lm,
        process("codec", "tests.fakes", "codec", *fake) as decoder,
        gateways_over(tts_lm, decoder, gateways) as mesh,
    ):
        yield mesh


@asynccontextmanager
async def gateways_over(tts_lm: Process, codec: Process, count: int) -> AsyncIterator[Mesh]:
    """So many gateways, all over the same two stages."""
    flags = ("--tts-lm-address", tts_lm.address, "--codec-address", codec.address, "--no-http")
    async with AsyncExitStack() as running:
        names = ["gateway", *(f"gateway_{i}" for i in range(2, count + 1))]
        started = [await running.enter_async_context(process(name, "services.gateway", *flags)) for name in names]
        yield Mesh([each.address for each in started], {each.name: each for each in (tts_lm, codec, *started)})
