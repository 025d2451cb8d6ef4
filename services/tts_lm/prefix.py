"""What a prompt begins with whatever is said: computed once, shared by all who begin alike. Pure bookkeeping.

Role, instruct, language and speaker come before the first word, and so does the part of a cloned reference that meets
reference text alone. Its keys and values depend on nothing else, so they are found again by a hash of exactly these
rows: a voice that is replaced under its name has another hash, and never sounds like the one before.

    entry      |■■■■■■■■|■■■■■■■■|■■■     |      pages of the cache, three rows in the last one
    sequence   |--same--|--same--|■■■□□□□□|□□…   whole pages are read where they lie; the last one is copied
                                                 before anything is written behind it

The prefix always runs as a pass of its own, cached or not: so an utterance has the same bits whether it was found,
had to be computed, or found no room to be kept.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from hashlib import blake2b

from services.tts_lm.model.prompt import SPEAKER, CodecPart, Prompt, PromptRow
from services.tts_lm.pages import PageAllocator, Pages

Vector = tuple[float, ...] | None


@dataclass(frozen=True)
class Prefix:
    """The rows that are the same for every text, the vector that one of them may stand for, and the hash of both."""

    rows: tuple[PromptRow, ...]
    vector: Vector
    key: bytes


@dataclass(eq=False)
class Fill:
    """Rows that have to run, into `pages`, before anyone can stand behind them."""

    rows: tuple[PromptRow, ...]
    vector: Vector
    pages: Pages
    done: bool = False


@dataclass(frozen=True)
class PageCopy:
    """The first `row_count` rows of page `source` belong into page number `place` of whoever begins behind it."""

    source: int
    place: int
    row_count: int


@dataclass(eq=False)
class Entry:
    """A prefix in the cache. `pins`: sequences that read its pages or are about to copy from them."""

    fill: Fill
    key: bytes
    pins: int = 0

    @property
    def page_count(self) -> int:
        return len(self.fill.pages.numbers)


def prefix_of(prompt: Prompt, reference: Items[int], vector: Vector) -> Prefix:
    """The part of `prompt` that no text can change; at least one row is left behind it."""
    rows = list(prompt.head)
    if prompt.layout == "whole":
        rows += [PromptRow(index, prompt.codec_pad) for index in reference]
    elif prompt.icl is not None:
        # The row after the last reference frame is left out: somebody has to give the first hidden state.
        parts: list[CodecPart] = [prompt.codec_bos]
        parts += prompt.icl[:-1]
        rows += [PromptRow(index, part) for index, part in zip(reference, parts, strict=False)]
    return Prefix(tuple(rows), vector, _key(rows, vector))


def _key(rows: Items[PromptRow], vector: Vector) -> bytes:
    numbers = array("q")
    for row in rows:
        part = row.codec
        # Every kind of part has a first number of its own, so that no two lists of rows have one spelling.
        if part is None:
            numbers.extend((row.text, -1))
        elif part == SPEAKER:
            numbers.extend((row.text, -2))
        elif isinstance(part, int):
            numbers.extend((row.text, -3, part))
        else:
            numbers.extend((row.text, len(part), *(int(code) for code in part)))
    digest = blake2b(numbers.tobytes(), digest_size=16)
    if vector is not None:
        digest.update(array("d", vector).tobytes())
    return digest.digest()


class PrefixCache:
    """At most `page_limit` pages of prefixes, the least recently used first to go. One thread's, but for `holds`."""

    def __init__(self, allocator: PageAllocator, page_limit: int) -> None:
        self._allocator, self.page_limit = allocator, page_limit
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._new: list[Entry] = []  # asked for and, when last looked at, not computed
        self.page_count = 0

    def holds(self, key: bytes) -> bool:
        """Whether that prefix is here or being computed; from any thread, true at the moment of asking."""
        return key in self._entries

    @property
    def is_full(self) -> bool:
        """Whether a new prefix would have to take the place of another."""
        return self.page_count >= self.page_limit

    @property
    def idle_page_count(self) -> int:
        """Pages that are given back as soon as somebody needs them."""
        return sum(entry.page_count for entry in self._entries.values() if not entry.pins)

    def find(self, prefix: Prefix) -> Entry | None:
        """Its entry, made where there is none; None where there is no room for one."""
        entry = self._entries.get(prefix.key)
        if entry is None:
            entry = self._make(prefix)
        if entry is not None:
            self._entries.move_to_end(prefix.key)
        return entry

    def pending(self) -> list[Fill]:
        """What was asked for and has not run yet, in order."""
        if self._new:
            self._new = [e for e in self._new if not e.fill.done and self._entries.get(e.key) is e]
        return [entry.fill for entry in self._new]

    def make_room(self, page_count: int) -> bool:
        """Give pages back until so many are free, or nothing is left that nobody uses."""
        self._drop(lambda: self._allocator.free_count >= page_count)
        return self._allocator.free_count >= page_count

    def _make(self, prefix: Prefix) -> Entry | None:
        wanted = -(-len(prefix.rows) // self._allocator.page_size)
        if not prefix.rows or wanted > self.page_limit:
            return None
        self._drop(lambda: self.page_count + wanted <= self.page_limit and self._allocator.free_count >= wanted)
        pages = Pages()
        if self.page_count + wanted > self.page_limit or not self._allocator.grow(pages, len(prefix.rows)):
            return None
        entry = self._entries[prefix.key] = Entry(Fill(prefix.rows, prefix.vector, pages), prefix.key)
        self._new.append(entry)
        self.page_count += wanted
        return entry

    def _drop(self, is_enough: Callable[[], bool]) -> None:
        """The least recently used that nobody uses, one after the other, until it is enough or all are gone."""
        unused = [entry for entry in self._entries.values() if not entry.pins]
        while unused and not is_enough():
            entry = unused.pop(0)
            self.page_count -= entry.page_count
            del self._entries[entry.key]
            self._allocator.release(entry.fill.pages)
