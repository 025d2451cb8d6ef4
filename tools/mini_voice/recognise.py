"""Which of a list of sentences was said: pocketsphinx with a grammar of exactly those. Needs the `train` extra."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_RECOGNISER_HZ = 16000


def spoken_words(sentence: str) -> str:
    """Words as the dictionary writes them."""
    return " ".join(re.findall(r"[a-z']+", sentence.lower()))


@cache
def dictionary() -> frozenset[str]:
    """Every word that the recogniser knows."""
    import pocketsphinx

    path = os.path.join(pocketsphinx.get_model_path(), "en-us", "cmudict-en-us.dict")
    with open(path, encoding="utf-8") as file:
        return frozenset(line.split(maxsplit=1)[0] for line in file)


def grammar_decoder(jsgf: str) -> Any:
    """A recogniser of that grammar alone."""
    import pocketsphinx

    decoder = pocketsphinx.Decoder(pocketsphinx.Config(lm=None, loglevel="FATAL"))
    decoder.add_jsgf_string("only", jsgf)
    decoder.activate_search("only")
    return decoder


def hear(decoder: Any, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> str:
    """Words heard in mono `samples`; empty where nothing fits."""
    import soxr

    audio = soxr.resample(samples, sample_rate_hz, _RECOGNISER_HZ)
    quiet = np.zeros(_RECOGNISER_HZ // 5, np.float32)
    pcm = (np.clip(np.concatenate([quiet, audio, quiet]), -1, 1) * 32767).astype(np.int16)
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return str(heard.hypstr) if heard else ""


class Identifier:
    """Closed grammar over `sentences`, which must be spelled out in words of the dictionary."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self._words = [spoken_words(sentence) for sentence in sentences]
        unknown = {word for line in self._words for word in line.split()} - dictionary()
        if unknown:
            raise ValueError(f"the dictionary has no {', '.join(sorted(unknown))}")
        rules = " | ".join(f"({line})" for line in self._words)
        self._decoder = grammar_decoder(f"#JSGF V1.0; grammar s; public <s> = {rules};")

    def identify(self, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> int | None:
        """Index of the sentence heard, or None."""
        heard = hear(self._decoder, samples, sample_rate_hz)
        return self._words.index(heard) if heard in self._words else None
