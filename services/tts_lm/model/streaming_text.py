"""Text as it comes: string deltas in, the token ids that no later text can change out, and none later than that.

Why it is exact. Pieces: all but the last piece (or the trailing run of whitespace) are closed by what follows them.
Inside the open piece, byte-level BPE has the factor property: a sequence of tokens is the encoding of its bytes if
and only if each neighbouring pair is the encoding of its own bytes (no merge can be the first to cross a boundary
that its pair alone would not cross). So for any continuation the tokens of the known bytes are either their encoding
now, or enc(p) for a prefix p, followed by one token T that starts in the known bytes and ends beyond them, with
(last of enc(p), T) a valid pair. What all these have in common is final; one such T that real text can spell is the
witness that the rest is not.

Checked by brute force over all continuations of small alphabets in tests/tts_lm/test_streaming_text.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from services.tts_lm.model.normal import check_joined, settle, variants
from services.tts_lm.model.repertoire import Repertoire
from services.tts_lm.model.text_progress import TextProgress
from services.tts_lm.model.tokenizer import PIECE, WHITESPACE, Tokenizer

_FOLLOWERS: tuple[str, ...] = ("a", "s", "t", "m", "d", "r", "re", "v", "ve", "l", "ll", "1", "!", "'", " ", "\t", "\n")
_FOLLOWERS += tuple(space + char for space in (" ", "\t") for char in ("a", "1", "!", "\n"))
"""One continuation for every way in which the piece expression can go on: its character classes and contractions."""

_PATIENT_CHARACTERS = 128
"""Beyond this many undecided characters, far longer than any word, an analysis waits until there are a quarter more,
so that a flood without a boundary costs linear time."""

_MANY_VARIANTS = 32
"""Beyond a patient length, text whose last character may become more than these is not asked what each would mean: a
bare Korean consonant may become any of 588 syllables."""

_COMPLETIONS = 4096


class StreamingText:
    """One utterance's text. `feed` and `finish` return the ids that have become final, in order.

    Both raise `InvalidRequest` for a flood of combining characters, which no voice could say, and for what the voice's
    `repertoire` lacks.
    """

    def __init__(self, tokenizer: Tokenizer, repertoire: Repertoire | None = None) -> None:
        self._tokenizer = tokenizer
        self._repertoire = repertoire
        self._raw = ""  # may be the beginning of a special token's spelling
        self._begun = False  # leading whitespace is behind us
        self._rest = ""  # raw characters that NFC may still change
        self._open = ""  # normalised text from the start of the first open piece on, or its tail
        self._skip = 0  # bytes of `_open` that are released
        self._context: int | None = None  # the last token released in `_open`
        self._patience = 0  # characters to wait for
        self._written = self._settled_count = 0
        self.progress = TextProgress()

    def feed(self, delta: str) -> tuple[int, ...]:
        self._raw += delta
        self._written += len(delta)
        if len(self._raw) < self._patience:
            return ()
        text, self._raw = self._tokenizer.clean_begun(self._raw)
        self._take(text)
        ids = (*self._close(), *self._decide())
        self._release(ids)
        undecided = len(self._open) + len(self._rest)
        self._patience = undecided // 4 if undecided > _PATIENT_CHARACTERS else 0
        return ids

    def finish(self) -> tuple[int, ...]:
        """Everything that is left, at the end of the text."""
        raw, self._raw = self._raw, ""
        self._take(raw)
        text = self._open + unicodedata.normalize("NFC", self._rest)
        ids = _tokens(self._tokenizer, text, self._skip)
        self.progress.taken(self._settled_count + len(text) - len(self._open), self._written)
        self._release(ids)
        self._rest = self._open = ""
        return ids

    def _release(self, ids: tuple[int, ...]) -> None:
        self.progress.released(self._tokenizer.bpe.spelling[index] for index in ids)

    def _take(self, text: str) -> None:
        if self._repertoire is not None:
            text = self._repertoire.admit(text)
        if not self._begun:
            match = WHITESPACE.match(text)
            text = text[match.end() :] if match else text
            self._begun = bool(text)
            self.progress.taken(0, self._written - len(self._raw) - len(text))
        text = self._rest + text
        check_joined(text)
        settled, self._rest = settle(text)
        self._open += settled
        self._settled_count += len(settled)
        self.progress.taken(self._settled_count, self._written - len(self._raw) - len(self._rest))

    def _close(self) -> tuple[int, ...]:
        """Release the pieces that nothing to come can reach."""
        text = self._open + unicodedata.normalize("NFC", self._rest)
        start = _open_start(text, len(self._open))
        if not start:
            return ()
        closed = len(text[:start].encode())
        ids = _tokens(self._tokenizer, text, self._skip, closed)
        # Tokens may have been released beyond this piece: those that are the same in every division into pieces.
        self._open, self._skip = self._open[start:], max(0, self._skip - closed)
        return ids

    def _decide(self) -> tuple[int, ...]:
        """Release the tokens of the open piece that nothing to come can change."""
        ids = _Analysis(self._tokenizer, self._open, self._rest, self._skip, self._context).final()
        if ids:
            self._skip += sum(len(self._tokenizer.bpe.spelling[i]) for i in ids)
            self._context = ids[-1]
            self._forget()
        return ids

    def _forget(self) -> None:
        """Drop text that no rule can look back to: eight characters of a piece tell the expression all it can ask."""
        released = len(self._open.encode()[: self._skip].decode(errors="ignore"))
        if released > 8 and not self._open.isspace():
            self._skip -= len(self._open[: released - 8].encode())
            self._open = self._open[released - 8 :]


def _open_start(text: str, settled: int) -> int:
    """Where the first piece begins that text to come can change: the last one, the run of whitespace at the end, or
    the one with the first character that is not settled."""
    spans = _spans(text)
    if not spans:
        return 0
    start = spans[-1][0]
    while spans and text[slice(*spans[-1])].isspace():
        start = spans.pop()[0]
    if settled < len(text):
        start = min(start, next(a for a, b in _spans(text) if b > settled))
    return start


def _tokens(tokenizer: Tokenizer, text: str, skip: int, size: int | None = None) -> tuple[int, ...]:
    """Tokens of `text` from byte `skip` on, as far as they end within its first `size` bytes."""
    bpe, offset = tokenizer.bpe, 0
    found: list[int] = []
    for a, b in _spans(text):
        piece = text[a:b].encode()
        end = max(offset, min(skip, offset + len(piece)))
        for index in bpe.encode(piece[end - offset :]):
            end += len(bpe.spelling[index])
            if size is not None and end > size:
                return tuple(found)
            found.append(index)
        offset += len(piece)
    return tuple(found)


class _Analysis:
    """Which tokens of one open piece, or run of whitespace, are final."""

    def __init__(self, tokenizer: Tokenizer, settled: str, rest: str, skip: int, context: int | None) -> None:
        self._tokenizer, self._bpe, self._look = tokenizer, tokenizer.bpe, tokenizer.lookahead
        self._settled, self._rest, self._skip, self._context = settled, rest, skip, context

    def final(self) -> tuple[int, ...]:
        normal = unicodedata.normalize("NFC", self._rest)
        text = self._settled + normal
        if not text:
            return ()
        becoming = variants(self._rest) if self._rest else ()
        if len(text) > _PATIENT_CHARACTERS and len(becoming) > _MANY_VARIANTS:
            return ()
        # Combining marks that are not settled may be reordered, so that nothing of them is certain.
        marked = any(map(unicodedata.combining, normal))
        size = len((self._settled if marked else text).encode())
        final = self._common(_tokens(self._tokenizer, text, self._skip, size), text)
        for other in becoming:
            final = self._common(final, self._settled + other) if final else final
        return final

    def _common(self, final: tuple[int, ...], text: str) -> tuple[int, ...]:
        """What `final` shares with every continuation of `text`."""
        size, starts = len(text.encode()), {0}
        for follower in ("", *(() if len(text) > 3 and text[1:].isalpha() else _FOLLOWERS)):
            final = _shared(final, _tokens(self._tokenizer, text + follower, self._skip, size))
            starts |= {a for a, b in _spans(text + follower) if a < len(text) <= b}
        for start in sorted(starts):
            final = self._straddled(final, text, start) if final else final
        return final

    def _straddled(self, final: tuple[int, ...], text: str, start: int) -> tuple[int, ...]:
        """`final` less what a token that begins in the piece at `start` and ends beyond `text` can change."""
        offset = len(text[:start].encode())
        before = _tokens(self._tokenizer, text[:start], self._skip)
        data = text.encode()[max(offset, self._skip) :]
        context = self._context if self._skip > offset else None  # else the piece begins with no token of ours
        head, tail = self._anchor(data)
        for length in range(min(self._look.longest - 1, len(data)), 0, -1):
            known, begun = data[:-length], data[-length:]
            own = self._prefix(data, head, tail, len(known))
            shared = _shared(final, (*before, *own))
            if len(shared) == len(final) or (own and not self._stands(context, own[0])):
                continue
            if self._has_witness(text, start, data, own, begun, own[-1] if own else context):
                final = shared
        return final

    def _anchor(self, data: bytes) -> tuple[tuple[int, ...], int]:
        """Tokens of `data` that end well before its last bytes, and where: prefixes of a long piece share them."""
        count, end, last = 0, 0, len(data) - 2 * self._look.longest
        tokens = self._bpe.encode(data)
        for index in tokens:
            if end + len(self._bpe.spelling[index]) > last:
                break
            count, end = count + 1, end + len(self._bpe.spelling[index])
        return tokens[:count], end

    def _prefix(self, data: bytes, head: tuple[int, ...], end: int, size: int) -> tuple[int, ...]:
        """The encoding of the first `size` bytes; where `head` and what follows are a pair, they are it (factor
        property).
        """
        rest = self._bpe.encode(data[end:size])
        if head and rest and not self._look.may_follow(head[-1], rest[0]):
            return self._bpe.encode(data[:size])
        return (*head, *rest)

    def _stands(self, context: int | None, first: int) -> bool:
        return context is None or self._look.may_follow(context, first)

    def _has_witness(
        self, text: str, start: int, data: bytes, own: tuple[int, ...], begun: bytes, last: int | None
    ) -> bool:
        return any(
            self._look.may_follow(last, index)
            and self._can_be_spelled(text, start, data, (*own, index), token[len(begun) :])
            for token, index in self._look.beginning_with(begun)
        )

    def _can_be_spelled(self, text: str, start: int, data: bytes, tokens: tuple[int, ...], more: bytes) -> bool:
        """Whether some text goes on with the bytes `more` inside the same piece, the tokens then being these."""
        for chars, whole in _completions(more):
            longer = text + chars
            if (
                unicodedata.is_normalized("NFC", longer)
                and any(_reaches(longer, start, follower) for follower in ("", "a", "!", "1", "\n"))
                and (whole or self._bpe.encode(data + chars.encode())[: len(tokens)] == tokens)
            ):
                return True
        return False


def _spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in PIECE.finditer(text)]


def _reaches(text: str, start: int, follower: str) -> bool:
    """Whether a piece of `text`, when `follower` comes next, begins at `start` and holds all that follows it."""
    return any(a == start and b >= len(text) for a, b in _spans(text + follower))


def _completions(data: bytes) -> Iterator[tuple[str, bool]]:
    """Texts that begin with these bytes: the text itself when they end with a whole character, else each that
    completes it.
    """
    try:
        yield data.decode(), True
        return
    except UnicodeDecodeError as error:
        if error.end < len(data) or error.reason != "unexpected end of data":
            return  # no text spells this
        chars, left = data[: error.start].decode(), data[error.start :]
    lead = left[0]
    width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    missing = width - len(left)
    for number in range(min(64**missing, _COMPLETIONS)):
        tail = bytes(0x80 | number >> 6 * place & 0x3F for place in range(missing - 1, -1, -1))
        try:
            yield chars + (left + tail).decode(), False
        except UnicodeDecodeError:
            continue


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    count = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:count]
