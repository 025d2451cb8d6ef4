"""Does what was said sound complete? The seam, and an answer from the words alone.

A turn model is asked at every soft end of a turn, off the event loop; the machine waits less the surer it is.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 0.5

_COMPLETE, _LIKELY, _UNLIKELY, _INCOMPLETE = 0.95, 0.75, 0.25, 0.05
_ENDS, _ASIDES = frozenset(".!?。！？"), frozenset(",;:，、；：…-–—")
_CLOSERS = "\"'”’)]」』》"
_OPEN_WORDS = frozenset(
    {"and", "but", "or", "so", "because", "if", "when", "while", "that", "which", "who", "whose", "where", "than"}
    | {"the", "a", "an", "my", "your", "his", "her", "its", "our", "their", "this", "these", "those", "some", "any"}
    | {"of", "to", "in", "on", "at", "for", "from", "with", "by", "about", "into", "as", "like", "is", "are", "was"}
    | {"were", "am", "be", "can", "could", "will", "would", "should", "have", "has", "do", "does", "i", "we", "um"}
    | {"uh", "er", "erm", "hmm", "well", "then", "also", "plus", "not", "very", "really", "just", "let's", "i'm"}
)
_OPEN_CHINESE = (
    *(
        "和",
        "或者",
        "但是",
        "可是",
        "因为",
        "所以",
        "如果",
        "然后",
        "而且",
        "还有",
        "就是",
        "那个",
        "这个",
        "不过",
        "虽然",
    ),
    *("的", "把", "被", "跟", "对", "从", "在", "我想", "我要", "比如", "以及", "嗯", "呃", "并且", "是不是", "要"),
)
_CLOSED_CHINESE = ("吗", "呢", "吧", "了", "啊", "呀", "谢谢", "再见", "好的", "是的", "多少", "什么", "怎么样")


class TurnModel(Protocol):
    """Whether a turn is over. Called on any thread, one call at a time."""

    def p_complete(self, samples: NDArray[np.int16], text: str = "") -> float:
        """The probability that the turn is complete. `samples`: its sound, mono 16 kHz, the silence at its end
        included; `text`: what was recognised of it so far, often nothing."""


class LexicalTurnModel:
    """By the words that were recognised: how they end. Without any, it knows nothing."""

    def p_complete(self, samples: NDArray[np.int16], text: str = "") -> float:
        """Marks first, then whether the last word asks for another one."""
        text = text.rstrip().rstrip(_CLOSERS)
        if not text:
            return UNKNOWN
        if text.endswith(("...", "…")) or text[-1] in _ASIDES:
            return _INCOMPLETE
        if text[-1] in _ENDS:
            return _COMPLETE
        last = text.split()[-1].casefold().replace("’", "'")
        if last in _OPEN_WORDS or last.endswith(_OPEN_CHINESE):
            return _INCOMPLETE
        if last.endswith(_CLOSED_CHINESE):
            return _LIKELY
        return _UNLIKELY if last.isdigit() else UNKNOWN  # a number may get more digits
