"""Which of a list of sentences was said: pocketsphinx with a grammar of exactly those sentences."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_RECOGNISER_HZ = 16000


def spoken_words(sentence: str) -> str:
    """Words as the dictionary writes them."""
    return " ".join(re.findall(r"[a-z']+", sentence.lower()))


class Identifier:
    """Closed grammar over `sentences`; needs the `train` extra."""

    def __init__(self, sentences: Sequence[str]) -> None:
        import pocketsphinx

        self._words = [spoken_words(sentence) for sentence in sentences]
        config = pocketsphinx.Config(lm=None, loglevel="FATAL")
        path = os.path.join(pocketsphinx.get_model_path(), "en-us", "cmudict-en-us.dict")
        with open(path, encoding="utf-8") as file:
            known = {line.split(maxsplit=1)[0] for line in file}
        unknown = {word for line in self._words for word in line.split()} - known
        if unknown:
            raise ValueError(f"the dictionary has no {', '.join(sorted(unknown))}")
        self._decoder = pocketsphinx.Decoder(config)
        rules = " | ".join(f"({line})" for line in self._words)
        self._decoder.add_jsgf_string("sentences", f"#JSGF V1.0; grammar s; public <s> = {rules};")
        self._decoder.activate_search("sentences")

    def identify(self, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> int | None:
        """Index of the sentence heard in mono `samples`, or None."""
        import soxr

        audio = soxr.resample(samples, sample_rate_hz, _RECOGNISER_HZ)
        quiet = np.zeros(_RECOGNISER_HZ // 5, np.float32)
        pcm = (np.clip(np.concatenate([quiet, audio, quiet]), -1, 1) * 32767).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return self._words.index(heard.hypstr) if heard and heard.hypstr in self._words else None
