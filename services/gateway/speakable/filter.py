"""A stream of what a language model writes → what a voice may say of it: no markdown, code, tables, emoji, addresses,
thoughts or calls of tools. Pure and total: any text, cut anywhere, gives the same words.

Nothing waits for the end of anything that is spoken: marks are left out where they stand, and what is between them goes
on at once. Held back are only marks whose meaning depends on what follows (`*`, `<b`, `![`, `&am`), at the start of a
line a few more (`-`, `#`), and a word that is so far the start of `https://` or `www.`: h, ht, htt, http, https, w, ww,
www. It knows no language: how numbers and dates are read is `spoken.py`'s business, or the model's.
"""

from __future__ import annotations

from collections.abc import Callable

from services.gateway.speakable import marks, skips, tags
from services.gateway.speakable.pieces import Piece

_BLANK = " \t\r"
_WHITE = " \t\r\n"


class MarkupFilter:
    """One text. `feed` what comes, `flush` at its end; both return what may be spoken now."""

    def __init__(self) -> None:
        self._tail = ""  # the last characters that were judged
        self._held = ""  # those behind them, not judged yet
        self._offset = 0  # of the first character behind the tail, in the original
        self._pieces: list[Piece] = []
        self._skip: skips.Skip | None = None
        self._run = ""  # a mark that is left out as often as it is repeated
        self._base = 0  # where the text at hand begins, in the original
        self._address = -1  # where the next address in it begins
        self._last = "\n"  # spoken
        self._last_solid = ""  # spoken, and not blank
        self._is_line_start = True  # nothing but blanks was spoken of this line
        self._left_out = False  # something of this line was
        self._has_gap = False  # something was left out since the last character was spoken
        self._is_item = False  # a bullet was just left out
        self._is_heading = False
        self._brackets = 0
        self._may_lead = False  # a bracket was just closed
        self._searched = 0  # characters of what is held that cannot end the tag it begins with
        self._handlers: dict[str, Callable[[str, int, bool], int]] = {
            "\n": self._newline,
            "*": self._star,
            "_": self._underscore,
            "`": self._backtick,
            "~": self._tilde,
            "[": self._bracket,
            "]": self._closing_bracket,
            "<": self._tag,
            ">": self._quote,
            "|": self._bar,
            "\\": self._backslash,
            "&": self._entity,
            "@": self._at,
            "/": self._slash,
            "!": self._exclamation,
            "#": self._hash,
            marks.JOINER: self._joiner,
        }
        self._line_handlers = {"-": self._dash, "+": self._plus, "=": self._equals, ":": self._colon}

    def feed(self, delta: str) -> tuple[Piece, ...]:
        """More text; returns what of it can be spoken, in order."""
        return self._scan(delta, False)

    def flush(self) -> tuple[Piece, ...]:
        """There is no more text."""
        return self._scan("", True)

    # The scan. Handlers get the text, a place in it and whether it is all; they return the place behind what they have
    # judged, or the same place when that takes more text.

    def _scan(self, delta: str, final: bool) -> tuple[Piece, ...]:
        text = self._tail + self._held + delta
        place = first = len(self._tail)
        self._base = self._offset - first
        self._address = -1
        while place < len(text):
            after = self._step(text, place, final)
            if after == place and self._skip is None and not final:
                break
            place = after
            if self._skip is not None:
                self._has_gap = self._left_out = True
                place, is_over = self._skip.take(text, place, final)
                if not is_over:
                    break
                self._may_lead, self._skip = self._skip.leads_to_target, None
        self._offset += place - first
        self._held = "" if final else text[place:]
        self._tail = text[max(0, place - marks.TAIL_CHARACTERS) : place]
        pieces, self._pieces = tuple(self._pieces), []
        return pieces

    def _step(self, text: str, place: int, final: bool) -> int:
        if self._skip is not None:
            return place
        character = text[place]
        if self._run:
            if character == self._run:
                return self._leave_out(place, place + 1)
            self._run = ""
        if self._may_lead:
            self._may_lead = False
            if character in "([":
                self._skip = skips.Target() if character == "(" else skips.Label(leads_to_target=False)
                return place
        if self._is_line_start and (judged := self._line_start(text, place, final)) >= 0:
            return judged
        self._is_item = False
        if (handler := self._handlers.get(character)) is not None:
            return handler(text, place, final)
        if (junk := marks.JUNK.match(text, place)) is not None:
            return self._leave_out(place, junk.end())
        return self._plain(text, place, final)

    def _plain(self, text: str, place: int, final: bool) -> int:
        """What is spoken as it stands, up to the next mark or address."""
        if self._address < place:
            found = marks.ADDRESS.search(text, place)
            self._address = len(text) if found is None else found.start()
        if self._address == place and (found := marks.ADDRESS.match(text, place)) is not None:
            if found[0].endswith("://") or found.end() < len(text):
                return self._leave(skips.Address(marks.URL, marks.URL_ENDS), place, found.end())
            if not final:
                return place
            self._address = len(text)
        plain = marks.PLAIN.match(text, place, self._address)
        assert plain is not None, "all other characters have handlers"
        return self._speak(text, place, plain.end())

    def _line_start(self, text: str, place: int, final: bool) -> int:
        """What means more at the start of a line than elsewhere; -1 for what does not."""
        character = text[place]
        if (blanks := marks.BLANKS.match(text, place)) is not None:
            return self._speak(text, place, blanks.end())
        if character in self._line_handlers:
            return self._line_handlers[character](text, place, final)
        if character in marks.BULLETS:
            return self._bullet(place)
        if self._is_item and character == "[":
            if marks.TASK_BOX.match(text, place) is not None:
                return self._leave_out(place, place + 3)
            if not final and marks.PARTIAL_TASK_BOX.match(text, place) is not None:
                return place
        return -1

    # What becomes of a stretch.

    def _speak(self, text: str, start: int, end: int) -> int:
        """As it stands; blanks on both sides of what was left out become those before it."""
        first = start
        if self._has_gap and self._last in _WHITE:
            while first < end and text[first] in _BLANK:
                first += 1
        if first < end:
            self._tell(Piece(text[first:end], self._base + first, self._base + end))
        return end

    def _replace(self, start: int, end: int, word: str) -> int:
        if word == " " and self._last in _WHITE:
            return self._leave_out(start, end)
        self._tell(Piece(word, self._base + start, self._base + end))
        self._has_gap = word == " "
        return end

    def _tell(self, piece: Piece) -> None:
        text = piece.text
        self._has_gap = False
        self._last = text[-1]
        if solid := text.strip(_WHITE):
            self._last_solid, self._is_line_start = solid[-1], False
        if self._pieces and piece.is_verbatim:
            before = self._pieces[-1]
            if before.is_verbatim and before.original_end == piece.original_start:
                self._pieces[-1] = Piece(before.text + text, before.original_start, piece.original_end)
                return
        self._pieces.append(piece)

    def _leave_out(self, start: int, end: int) -> int:
        self._has_gap = self._left_out = True
        return end

    def _leave_run(self, mark: str, start: int, end: int) -> int:
        self._run = mark
        return self._leave_out(start, end)

    def _leave(self, skip: skips.Skip, start: int, end: int) -> int:
        self._skip = skip
        return self._leave_out(start, end)

    def _bullet(self, place: int) -> int:
        self._is_item = True
        return self._leave_out(place, place + 1)

    # The marks.

    def _newline(self, text: str, place: int, final: bool) -> int:
        is_empty = self._is_line_start and self._left_out
        if not is_empty:
            self._tell(Piece("\n", self._base + place, self._base + place + 1))
        self._has_gap, self._left_out = is_empty, False
        self._is_line_start, self._is_item, self._is_heading, self._brackets = True, False, False, 0
        return place + 1

    def _star(self, text: str, place: int, final: bool) -> int:
        count = _run_of(text, place, 3, final)
        if count == 0:
            return place
        if count == 3:
            return self._leave_run("*", place, place + 3)
        before, behind = _around(text, place, place + count)
        if count == 1 and self._is_line_start and behind in _WHITE:
            return self._bullet(place)
        if before.isdecimal() and behind.isdecimal():
            return self._replace(place, place + count, "×" if count == 1 else " ")
        if count == 1 and behind and before + behind == "  " and self._last_solid.isdecimal():
            return self._replace(place, place + 1, "×")
        return self._leave_out(place, place + count)

    def _underscore(self, text: str, place: int, final: bool) -> int:
        count = _run_of(text, place, 3, final)
        if count == 0:
            return place
        if count == 3:
            return self._leave_run("_", place, place + 3)
        before, behind = _around(text, place, place + count)
        if before.isalnum() and behind.isalnum():  # a name: its words
            return self._replace(place, place + count, " ")
        return self._leave_out(place, place + count)

    def _backtick(self, text: str, place: int, final: bool) -> int:
        count = _run_of(text, place, 3, final)
        if count == 3:
            return self._leave(skips.Fence("`"), place, place + 3)
        return self._leave_out(place, place + count) if count else place

    def _tilde(self, text: str, place: int, final: bool) -> int:
        count = _run_of(text, place, 3, final)
        if count == 3 and self._is_line_start:
            return self._leave(skips.Fence("~"), place, place + 3)
        if count == 3:
            return self._leave_run("~", place, place + 3)
        _, behind = _around(text, place, place + 1)
        if count == 1 and not _is_mark(behind):
            return self._speak(text, place, place + 1)
        return self._leave_out(place, place + count) if count else place

    def _hash(self, text: str, place: int, final: bool) -> int:
        if not (self._is_line_start or self._is_heading):
            return self._speak(text, place, place + 1)
        count = _run_of(text, place, 7, final)
        if count == 0:
            return place
        if count == 7:
            return self._leave_run("#", place, place + 7)
        _, behind = _around(text, place, place + count)
        if behind in _WHITE:
            self._is_heading = True
        elif not _is_mark(behind):
            return self._speak(text, place, place + count)
        return self._leave_out(place, place + count)

    def _dash(self, text: str, place: int, final: bool) -> int:
        count = _run_of(text, place, 3, final)
        if count == 0:
            return place
        if count == 3:
            return self._leave_run("-", place, place + 3)
        _, behind = _around(text, place, place + count)
        if count == 1 and behind in _WHITE:
            return self._bullet(place)
        if _is_mark(behind):
            return self._leave_out(place, place + count)
        return self._speak(text, place, place + count)

    def _equals(self, text: str, place: int, final: bool) -> int:
        count = _run_of(text, place, 3, final)
        if count == 0:
            return place
        if count == 3:
            return self._leave_run("=", place, place + 3)
        _, behind = _around(text, place, place + count)
        if behind in "\r\n" or _is_mark(behind):
            return self._leave_out(place, place + count)
        return self._speak(text, place, place + count)

    def _plus(self, text: str, place: int, final: bool) -> int:
        _, behind = _around(text, place, place + 1)
        if not behind and not final:
            return place
        return self._bullet(place) if behind in _WHITE or _is_mark(behind) else self._speak(text, place, place + 1)

    def _colon(self, text: str, place: int, final: bool) -> int:
        _, behind = _around(text, place, place + 1)
        if not behind and not final:
            return place
        return self._leave_out(place, place + 1) if behind == "-" else self._speak(text, place, place + 1)

    def _quote(self, text: str, place: int, final: bool) -> int:
        return self._leave_out(place, place + 1) if self._is_line_start else self._speak(text, place, place + 1)

    def _bar(self, text: str, place: int, final: bool) -> int:
        if self._is_line_start:  # a row of a table
            return self._leave(skips.Line(), place, place + 1)
        return self._leave_out(place, place + 1)

    def _bracket(self, text: str, place: int, final: bool) -> int:
        rest = text[place : place + len(marks.TOOL_CALLS)]
        if rest == marks.TOOL_CALLS:
            return self._leave(skips.Rest(), place, place + len(rest))
        if (citation := marks.CITATION.match(text, place)) is not None:
            self._may_lead = True
            return self._leave_out(place, citation.end())
        is_open = marks.TOOL_CALLS.startswith(rest) or marks.PARTIAL_CITATION.match(text, place) is not None
        if is_open and not final and place + len(rest) == len(text):
            return place
        if rest[1:2] == "^":  # a footnote
            return self._leave(skips.Label(leads_to_target=False), place, place + 2)
        self._brackets += 1
        return self._leave_out(place, place + 1)

    def _closing_bracket(self, text: str, place: int, final: bool) -> int:
        if self._brackets:
            self._brackets -= 1
            self._may_lead = True
        return self._leave_out(place, place + 1)

    def _exclamation(self, text: str, place: int, final: bool) -> int:
        before, behind = _around(text, place, place + 1)
        if before in " \t\r\n[(*_>|" and not (behind or final):
            return place
        if before in " \t\r\n[(*_>|" and behind == "[":
            return self._leave(skips.Label(leads_to_target=True), place, place + 2)
        return self._speak(text, place, place + 1)

    def _backslash(self, text: str, place: int, final: bool) -> int:
        _, behind = _around(text, place, place + 1)
        if not behind and not final:
            return place
        is_mark = behind == "\n" or (behind.isascii() and behind.isprintable() and not behind.isalnum())
        return self._leave_out(place, place + 1) if is_mark else self._speak(text, place, place + 1)

    def _entity(self, text: str, place: int, final: bool) -> int:
        rest = text[place + 1 : place + marks.LONGEST_ENTITY]
        name, end, _ = rest.partition(";")
        if end and name.lower() in marks.ENTITIES:
            return self._replace(place, place + len(name) + 2, marks.ENTITIES[name.lower()])
        is_open = not end and place + 1 + len(rest) == len(text)
        if is_open and not final and any(known.startswith(name.lower()) for known in marks.ENTITIES):
            return place
        return self._speak(text, place, place + 1)

    def _at(self, text: str, place: int, final: bool) -> int:
        before, behind = _around(text, place, place + 1)
        if marks.MAILBOX.match(before) is None:
            return self._speak(text, place, place + 1)
        if not behind and not final:
            return place
        if behind.isascii() and behind.isalnum():  # its first half is spoken already, like any word
            return self._leave(skips.Address(marks.MAIL, marks.MAIL_ENDS), place, place + 1)
        return self._speak(text, place, place + 1)

    def _slash(self, text: str, place: int, final: bool) -> int:
        before, behind = _around(text, place, place + 1)
        if before == ":" and not behind and not final:
            return place
        is_path = marks.DOMAIN.search(text, max(0, place - 12), place) is not None
        if is_path or (before == ":" and behind == "/"):
            return self._leave(skips.Address(marks.URL, marks.URL_ENDS), place, place + 1)
        if self._last == "/":
            return self._leave_out(place, place + 1)
        return self._speak(text, place, place + 1)

    def _joiner(self, text: str, place: int, final: bool) -> int:
        before, _ = _around(text, place, place + 1)
        if marks.IS_JUNK.match(before) is not None:  # in other scripts it is part of a word
            return self._leave_out(place, place + 1)
        return self._speak(text, place, place + 1)

    def _tag(self, text: str, place: int, final: bool) -> int:
        behind = text[place + 1 : place + 2]
        if not behind and not final:
            return place
        if marks.TAG_BEGINS.match(behind) is None:
            return self._replace(place, place + 1, "< ") if _is_mark(behind) else self._speak(text, place, place + 1)
        if text.startswith("<!--", place):
            self._searched = 0
            return self._leave(skips.Until("-->"), place, place + 4)
        limit = place + marks.MAX_TAG_CHARACTERS
        end = marks.TAG_ENDS.search(text, place + max(1, self._searched), limit)
        if end is None and len(text) < limit and not final:
            self._searched = len(text) - place
            return place
        self._searched = 0
        if end is not None and end[0] == ">" and tags.is_tag(body := text[place + 1 : end.start()]):
            self._skip = tags.hidden_by(body)
            is_between_words = tags.is_between_words(body)
            return self._replace(place, end.end(), " ") if is_between_words else self._leave_out(place, end.end())
        if end is None and tags.may_become_tag(text[place + 1 :]):
            return self._leave_out(place, len(text))
        return self._replace(place, place + 1, "< ")  # a comparison, told apart from every tag


def _run_of(text: str, place: int, most: int, final: bool) -> int:
    """How often the character there is repeated, counted up to `most`; 0 when more text may make it more."""
    count, mark = 1, text[place]
    while count < most and text[place + count : place + count + 1] == mark:
        count += 1
    return 0 if count < most and place + count == len(text) and not final else count


def _is_mark(behind: str) -> bool:
    """Whether that character may be left out, so that what comes behind it would join what stands before it."""
    return behind in marks.MAY_VANISH or (behind > "\x7f" and marks.IS_JUNK.match(behind) is not None)


def _around(text: str, start: int, end: int) -> tuple[str, str]:
    """The characters before and behind a stretch; empty where there is none."""
    return text[max(0, start - 1) : start], text[end : end + 1]
