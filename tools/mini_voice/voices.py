"""The preset voices of mini and how the synthesiser makes them."""

from __future__ import annotations

from dataclasses import dataclass

RATE_WORDS_PER_MINUTE = 140


@dataclass(frozen=True)
class VoiceRecipe:
    """A preset voice: its espeak-ng voice and variant, base pitch and pitch range (0 to 99), and a gain."""

    name: str
    espeak_name: str
    pitch: int
    pitch_range: int
    gain: float


VOICES: tuple[VoiceRecipe, ...] = (
    VoiceRecipe("milo", "en-us+benjamin", 40, 40, 0.7),
    VoiceRecipe("mina", "en-us+f3", 50, 40, 0.7),
)
