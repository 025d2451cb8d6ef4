"""How much of everything is measured: on a GPU at the real dimensions, or anywhere at tiny ones, to try the command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """`sizes` maps what figures are called to the dimensions of the random checkpoint behind it."""

    sizes: dict[str, str]
    batches: tuple[int, ...]
    codec_shapes: tuple[tuple[int, int], ...]
    bursts: tuple[int, ...]
    rates: tuple[float, ...]
    streams: tuple[int, ...]
    seconds: float
    rounds: int
    samples: int
    slots: int
    positions: int
    longest_frames: int
    drift_frames: int
    parity_frames: int

    @property
    def distinct_sizes(self) -> list[str]:
        """Without those that are another's dimensions under a second name."""
        return list({like: size for size, like in reversed(self.sizes.items())}.values())[::-1]


FULL = Scale(
    sizes={"0.6B": "0.6B", "1.7B": "1.7B"},
    batches=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    codec_shapes=tuple((b, t) for t in (1, 2, 4, 8) for b in (1, 2, 4, 8, 16, 32, 64, 128) if b * t <= 128),
    bursts=(1, 3, 6, 8, 32, 128),
    rates=(1.0, 10.0, 20.0, 30.0),
    streams=(128, 160, 256),
    seconds=10.0,
    rounds=20,
    samples=60,
    slots=256,
    positions=512,
    longest_frames=125,
    drift_frames=64,
    parity_frames=24,
)
TINY = Scale(
    sizes={"0.6B": "tiny", "1.7B": "tiny"},
    batches=(1, 2),
    codec_shapes=((1, 1), (1, 2), (2, 1)),
    bursts=(1, 2),
    rates=(4.0,),
    streams=(2,),
    seconds=1.0,
    rounds=2,
    samples=5,
    slots=8,
    positions=128,
    longest_frames=12,
    drift_frames=3,
    parity_frames=4,
)
