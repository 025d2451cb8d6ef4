"""What is being said in each frame, from the synthesiser's own clock: pure arithmetic on words and phonemes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from tools.mini_voice.synthesiser import Phone, Word

FRAME_S = 0.08
LEAD_FRAMES = 2
"""Silent frames before the first word, in which the streaming layout reads two tokens ahead."""
TAIL_FRAMES = 1


def chars_by_frame(text: str, words: Sequence[Word], phones: Sequence[Phone], frame_count: int) -> list[int]:
    """Index of the character spoken at the middle of each frame; behind the last letter once speech is over.

    Within a word it moves evenly; in a pause it stands behind the word just spoken.
    """
    starts = [word.start_s for word in words]
    pauses = [phone.start_s for phone in phones if phone.name.startswith("_")]
    found = []
    for frame in range(frame_count):
        now = (frame + 0.5 - LEAD_FRAMES) * FRAME_S
        index = bisect_right(starts, now) - 1
        if index < 0:
            found.append(0)
            continue
        word = words[index]
        following = starts[index + 1] if index + 1 < len(starts) else frame_count * FRAME_S
        end = min([pause for pause in pauses if word.start_s < pause <= following], default=following)
        part = min(1.0, (now - word.start_s) / max(end - word.start_s, 1e-3))
        found.append(min(word.first_char + int(part * word.char_count), len(text)))
    return found


def phones_by_frame(phones: Sequence[Phone], frame_count: int, parts: int = 2) -> list[list[str]]:
    """Names of the phonemes at the middle of each of `parts` equal parts of each frame; "_" outside speech."""
    starts = [phone.start_s for phone in phones]
    rows = []
    for frame in range(frame_count):
        times = [(frame + (part + 0.5) / parts - LEAD_FRAMES) * FRAME_S for part in range(parts)]
        indices = [bisect_right(starts, time) - 1 for time in times]
        rows.append(["_" if index < 0 else _plain(phones[index].name) for index in indices])
    return rows


def _plain(name: str) -> str:
    return "_" if name.startswith("_") else name
