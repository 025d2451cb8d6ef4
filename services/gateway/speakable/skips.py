"""What is left out as a whole, and where it ends: one small class for each kind.

`take(text, start, final)` returns how far it was skipped and whether it ended there. What lies behind that point has
to be shown again, with more text behind it; it is never more than a few characters. `final`: no more text will come.
"""

from __future__ import annotations

import re
from typing import Protocol

from services.gateway.speakable import marks

_PARENTHESES = re.compile(r"[()\n]")
_LABEL_ENDS = re.compile(r"[\]\n]")


class Skip(Protocol):
    leads_to_target: bool
    """Behind it, in parentheses, comes where a link leads."""

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]: ...


class Rest:
    """Nothing more is spoken."""

    leads_to_target = False

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        return len(text), False


class Line:
    """To the end of the line, which itself is left."""

    leads_to_target = False

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        end = text.find("\n", start)
        return (len(text), False) if end < 0 else (end, True)


class Until:
    """To the end of a mark, such as `-->`, in any case of letters."""

    leads_to_target = False

    def __init__(self, mark: str) -> None:
        self._kept = len(mark) - 1
        self._mark = re.compile(re.escape(mark), re.IGNORECASE | re.ASCII)

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        found = self._mark.search(text, start)
        if found is not None:
            return found.end(), True
        return (len(text) if final else max(start, len(text) - self._kept)), False


class Element:
    """To the end of the tag that closes it. One that is never closed lasts to the end: the words of a mind are not for
    the voice. Those that open it again are not counted: who thinks about tags names them without closing them."""

    leads_to_target = False

    def __init__(self, name: str) -> None:
        self._content = Until(f"</{name}")
        self._is_closing = False

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        if not self._is_closing:
            start, self._is_closing = self._content.take(text, start, final)
        if not self._is_closing:
            return start, False
        end = text.find(">", start)
        return (len(text), False) if end < 0 else (end + 1, True)


class Label:
    """To the closing bracket, at most to the end of the line: the words of an image, the name of a reference."""

    def __init__(self, leads_to_target: bool) -> None:
        self.leads_to_target = leads_to_target
        self._left = marks.MAX_LABEL_CHARACTERS

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        found = _LABEL_ENDS.search(text, start, start + self._left)
        if found is None:
            end = min(len(text), start + self._left)
            self._left -= end - start
            self.leads_to_target &= self._left > 0
            return end, self._left == 0
        if found[0] == "\n":
            self.leads_to_target = False
            return found.start(), True
        return found.end(), True


class Target:
    """Where a link leads: to its closing parenthesis, at most to the end of the line."""

    leads_to_target = False

    def __init__(self) -> None:
        self._depth = 0
        self._left = marks.MAX_TARGET_CHARACTERS

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        end = min(len(text), start + self._left)
        for found in _PARENTHESES.finditer(text, start, end):
            if found[0] == "\n":
                return found.start(), True
            self._depth += 1 if found[0] == "(" else -1
            if self._depth == 0:
                return found.end(), True
        self._left -= end - start
        return end, self._left == 0


class Address:
    """An address on the web or of a mailbox. The marks of the sentence that ends behind it are left."""

    leads_to_target = False

    def __init__(self, body: re.Pattern[str], ends: re.Pattern[str]) -> None:
        self._body = body
        self._ends = ends
        self._depth = 0  # of parentheses inside

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        while True:
            if (body := self._body.match(text, start)) is not None:
                self._depth += body[0].count("(") - body[0].count(")")
                start = body.end()
            if (ends := self._ends.match(text, start)) is None:
                return start, start < len(text)
            if text[start] == ")" and self._depth > 0:
                self._depth -= 1
            elif len(ends[0]) <= 8:  # more are no end of a sentence
                return start, ends.end() < len(text) or final
            start += 1


class Fence:
    """Code, from behind the first three marks of its fence: to a fence as long on a line of its own, or, in the line
    where it began, to any that is as long."""

    leads_to_target = False

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._length = 3
        self._is_opening = True
        self._is_first_line = True
        self._is_line_start = False
        self._run = 0
        self._stop = re.compile(rf"[\n{mark}]")

    def take(self, text: str, start: int, final: bool) -> tuple[int, bool]:
        while start < len(text):
            character = text[start]
            if self._is_opening:
                if character == self._mark:
                    self._length += 1
                    start += 1
                    continue
                self._is_opening = False
            if character == self._mark:
                self._run += 1
                start += 1
                continue
            is_place = self._is_first_line or (self._is_line_start and character.isspace())
            if is_place and self._run >= self._length:
                return start, True
            start = self._content(text, start)
        return start, False

    def _content(self, text: str, start: int) -> int:
        """Skip what is no fence: to the next mark that may begin one."""
        if text[start] == "\n":
            self._is_line_start, self._is_first_line, self._run = True, False, 0
            return start + 1
        if self._is_line_start and self._run == 0 and text[start] in " \t>":
            return start + 1
        self._is_line_start, self._run = False, 0
        found = self._stop.search(text, start)
        return len(text) if found is None else found.start()
