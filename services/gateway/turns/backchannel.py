"""Speech over the agent's voice: "mhm", or an interruption? By its words. Pure; any other `OverlapModel` will do.

Where there are no words, length decides, and that is the turn machine's own rule.
"""

from __future__ import annotations

import unicodedata
from typing import Protocol

from services.gateway.turns.states import Overlap

_LISTENING = frozenset(
    {"mhm", "mm", "mmm", "mhmm", "hm", "hmm", "uh", "huh", "uhhuh", "uhuh", "aha", "ah", "oh", "ok", "okay", "yeah"}
    | {"yep", "yes", "yup", "right", "sure", "really", "wow", "cool", "nice", "great", "good", "exactly", "indeed"}
)
_LISTENING_PHRASES = frozenset({"i see", "got it", "of course", "go on", "all right", "makes sense", "i know"})
_STOPPING = frozenset(
    {"stop", "wait", "hold", "no", "nope", "but", "actually", "sorry", "pause", "quiet", "enough", "hey", "listen"}
)
_LISTENING_CHINESE = (
    "嗯哼",
    "是的",
    "好的",
    "对的",
    "明白",
    "知道",
    "原来如此",
    "这样啊",
    "没错",
    "当然",
    "真的",
    "继续",
)
_LISTENING_CHINESE_SYLLABLES = frozenset("嗯哦噢喔啊唔呃欸诶好对是行哇")
_STOPPING_CHINESE = ("停", "等", "不", "别", "但是", "可是", "打断", "安静", "闭嘴", "够了")
_MOST_WORDS = 3
_MOST_SYLLABLES = 6


class OverlapModel(Protocol):
    """Tells backchannels from interruptions."""

    def judge(self, text: str, final: bool) -> Overlap | None:
        """What it is, or None: not known yet. `text`: what was recognised, `final`: and more will not be."""


class LexicalOverlap:
    """By words, English and Chinese."""

    def judge(self, text: str, final: bool) -> Overlap | None:
        """Stop words interrupt at once, and so do many; a few words of listening are a backchannel, once they are all:
        "yes" may go on as "yes, but". Any other word interrupts in the end. None at all was noise."""
        words = _words(text)
        if not words:
            return Overlap.NOISE if final else None
        if any(word in _STOPPING or word.startswith(_STOPPING_CHINESE) for word in words):
            return Overlap.INTERRUPT
        if _listening(words):
            return Overlap.BACKCHANNEL if final else None
        return Overlap.INTERRUPT if final or len(words) > 1 or len(text) > _MOST_SYLLABLES else None


def _words(text: str) -> list[str]:
    kept = "".join(
        character if character.isalnum() else " " if character not in "'’-" else "" for character in text.casefold()
    )
    return unicodedata.normalize("NFKC", kept).split()


def _listening(words: list[str]) -> bool:
    if len(words) > _MOST_WORDS:
        return False
    if " ".join(words) in _LISTENING_PHRASES:
        return True
    return all(word in _LISTENING or _listening_chinese(word) for word in words)


def _listening_chinese(word: str) -> bool:
    if len(word) > _MOST_SYLLABLES:
        return False
    for phrase in _LISTENING_CHINESE:
        word = word.replace(phrase, "")
    return all(syllable in _LISTENING_CHINESE_SYLLABLES for syllable in word)
