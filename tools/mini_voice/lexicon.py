"""English words with their frequencies, from the pronouncing dictionary and language model that pocketsphinx installs.

Both are CMU's, under its two-clause BSD licence. Nothing of them is copied into the repository: they are read where the
data are made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_LOG_BASE = 1.0001
_WORD = re.compile(r"[a-z]+('[a-z]+)?")


def installed_lexicon(size: int = 20000) -> Sequence[tuple[str, float]]:
    """The `size` most frequent words, most frequent first, each with its probability."""
    import pocketsphinx

    path = os.path.join(pocketsphinx.get_model_path(), "en-us")
    model = pocketsphinx.NGramModel(
        pocketsphinx.Config(lm=None), pocketsphinx.LogMath(), os.path.join(path, "en-us.lm.bin")
    )
    with open(os.path.join(path, "cmudict-en-us.dict"), encoding="utf-8") as file:
        words = {line.split(maxsplit=1)[0] for line in file}
    logs = {word: model.prob([word]) for word in sorted(words) if _WORD.fullmatch(word)}
    best = sorted(logs, key=lambda word: (-logs[word], word))[:size]
    return [(word, _LOG_BASE ** logs[word]) for word in best if logs[word] > -400000]
