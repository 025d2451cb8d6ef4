"""What is spoken of markdown, code, tables, emoji, addresses, thoughts and calls of tools."""

from __future__ import annotations

import gc
import re
import time

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.gateway.speakable import SpeakableFilter
from services.gateway.speakable.filter import MarkupFilter
from tests.gateway.speakable.spoken import cut, one_by_one, pieces_of, said

SPOKEN = {
    "# Title ##\nText.": "Title \nText.",
    "###### Deep\n": "Deep\n",
    "#5 is C#, not #tag": "#5 is C#, not #tag",
    "A **bold** and *soft* and ***both*** and __bold__ and _soft_ and ~~gone~~ word.": (
        "A bold and soft and both and bold and soft and gone word."
    ),
    "- one\n- [x] two\n* three\n+ four\n• five\n  - nested": "one\ntwo\nthree\nfour\nfive\n  nested",
    "1. First\n2) Second": "1. First\n2) Second",
    "-5 degrees, well-known, a - b": "-5 degrees, well-known, a - b",
    "> Quoted\n>> twice": "Quoted\ntwice",
    "Before\n\n---\n\nAfter": "Before\n\n\nAfter",
    "Title\n=====\nText": "Title\nText",
    "Use `print` or ``a`b``.": "Use print or ab.",
    "See [the docs](https://x.y/z_(a) 'Title') now.": "See the docs now.",
    "[![A cat](cat.png)](https://x.y) ![b](c) End": "End",
    "As shown[1][2] and here.[^3]": "As shown and here.",
    "A [ref][id] and [sic].": "A ref and sic.",
    "Code:\n```python\nprint('```')\nx = 1\n```\nDone.": "Code:\nDone.",
    "~~~\ncode ``` \n~~~~\nDone.": "Done.",
    "````md\n```\nx\n```\n````\nDone.": "Done.",
    "    ```\n    code\n    ```\nDone.": "    Done.",
    "Say ```a b``` now. ```x": "Say now. ",
    "Never closed\n```\ncode\n": "Never closed\n",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n\nAfter.": "\nAfter.",
    "Hi 👋🏽 you 👨‍👩‍👧‍👦🇩🇪🏴󠁧󠁢󠁥󠁮󠁧󠁿! 1️⃣ First ❤️‍🔥 ✅.": "Hi you ! 1 First .",
    "See https://a.b/c?d=1&e=(f). Or (http://x.y/z), www.x.org/a! HTTPS://X.Y": "See . Or (), ! ",
    "example.com/docs and/or Node.js/Deno ftp://x.y/z": "example.com and/or Node.js/Deno ftp:",
    "Mail joe.doe@example.org. See @ noon.": "Mail joe.doe. See @ noon.",
    "<think>\nHm, <think> or </b>.\n</think>\nYes.": "Yes.",
    "<think>never closed": "",
    "Ok <tool_call>{'a': '<b>'}</tool_call><function=f>{}</function>then": "Ok then",
    "Ok [TOOL_CALLS][{'name': 'f'}]": "Ok ",
    "Ok <|python_tag|>f()": "Ok ",
    "Hm<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>!": "Hm!",
    "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>": "Yes",
    "<|im_start|>assistant\nYes.<|im_end|>": "Yes.",
    "<p class='x'>A <b>bold</b> word<br/>and <!-- no - no --> more</p>": "A bold word and more ",
    "<script>\nlet a = 1 < 2;\n</script >done <https://x.y>": "done ",
    "a < b, x<y and z> 3, <3, a > b -> c": "a < b, x< y and z> 3, <3, a > b -> c",
    "5 * 3 = 15, 2*3 and a * b": "5 × 3 = 15, 2×3 and a b",
    "my_var and __init__ and ____.": "my var and init and .",
    "R&D, AT&T, a &amp; b &lt;c&gt; &nbsp;d & e": "R&D, AT&T, a & b c d & e",
    "\\*not bold\\* C:\\Users": "not bold C:\\Users",
    "请看**重点**，网址https://x.y/z，邮箱a@b.cn。😀好的`代码`！": "请看重点，网址，邮箱a。好的代码！",
    "a | b\n--- | ---\n1 | 2": "a b\n1 2",
    "Wait!![x] Hm! [y](z) Yes!": "Wait!!x Hm! y Yes!",
    "w": "w",
    "http": "http",
    "ww": "ww",
    "Line one.\\\nLine two.": "Line one.\nLine two.",
}


@pytest.mark.parametrize(("written", "spoken"), SPOKEN.items())
def test_what_is_written_is_spoken_like_this(written: str, spoken: str) -> None:
    assert said(written) == spoken


SINGLE = [*"*_`~[]()<>|\\&@/!#\n\r\t -+=:.,?5ax字", "\u200d", "👋", "🏽", "\ufe0f", "\u20e3", "\ud800"]
RUNS = ["```", "~~~", "---", "](", "![", "[1]", "[x]", "[^", "- ", "12 ", " word ", "&amp;", "&#39;"]
ADDRESSES = ["https://", "http", "htt", "h", "www.", "x.com", ".com/"]
TAGS = ["<b>", "</b>", "<br>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<script", "</", "<!--", "-->"]
CONTROLS = ["<|im_start|>", "<|channel|>", "final<|message|>", "<｜tools▁begin｜>", "<｜tools▁end｜>", "[TOOL_CALLS]"]
MARKS = st.sampled_from([*SINGLE, *RUNS, *ADDRESSES, *TAGS, *CONTROLS])
MARKED = st.lists(MARKS, max_size=30).map("".join)
CUTS = st.lists(st.integers(0, 1000), max_size=12)


@settings(max_examples=600, deadline=None)
@given(MARKED, CUTS)
@example("`**![x](y)", [3])
@example("http://" + "." * 20, [9, 15, 16])
@example("<!--x--><b>y", [3])
def test_any_cut_of_a_text_gives_the_same_words_for_the_same_characters(text: str, places: list[int]) -> None:
    whole = one_by_one(pieces_of([text]))
    assert one_by_one(pieces_of(cut(text, places))) == whole
    assert one_by_one(pieces_of(text)) == whole, "character by character"


MARKUP = re.compile(
    r"[*`_\[\]|]|~~|://|<[A-Za-z/!?|｜]|^[ \t]*(?:#{1,6}(?:\s|\Z)|>|[-+](?:\s|\Z)|---|===|[•‣◦])|[\ufe0e\ufe0f\u20e3]",
    re.M,
)
EMOJI = regex.compile(r"\p{Emoji_Presentation}|\p{Regional_Indicator}|\p{Emoji_Modifier}")


@settings(max_examples=600, deadline=None)
@given(MARKED)
def test_no_markup_is_ever_spoken(text: str) -> None:
    spoken = said(text)
    assert MARKUP.search(spoken) is None
    assert EMOJI.search(spoken) is None
    spoken.encode()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text(st.characters(categories=["Cs", "So", "Sk", "Cf", "Cc", "Po"])))
def test_any_text_is_taken_and_what_is_spoken_can_be_sent(text: str) -> None:
    said(*text).encode()


def test_every_emoji_of_unicode_is_left_out() -> None:
    emoji = [chr(code) for code in range(0x80, 0x110000) if EMOJI.match(chr(code))]
    assert len(emoji) > 1000
    assert [one for one in emoji if said(f"a{one}b") != "ab"] == []


WORDS = st.from_regex(r"[A-Za-zéüñ]{2,9}|[0-9]{1,4}([.,][0-9]{1,2})?|[一-龥]{1,6}|I|a", fullmatch=True).filter(
    lambda word: word.lower() not in {"ht", "htt", "http", "https", "ww", "www"}
)
ENDS = st.sampled_from(
    ["", "", "", ",", ".", "?", "!", ";", ":", "…", "。", "，", "’s", "-like", "%", "°", "/h", ")", "”"]
)
TOKENS = st.tuples(st.sampled_from([" ", "\n", " (", " “", " — ", "  "]), WORDS, ENDS).map("".join)
PROSE = st.lists(TOKENS, min_size=1, max_size=20)


@settings(max_examples=400, deadline=None)
@given(PROSE)
def test_plain_words_pass_unchanged_and_at_once(tokens: list[str]) -> None:
    speakable = SpeakableFilter()
    for token in tokens:
        assert "".join(piece.text for piece in speakable.feed(token)) == token
    assert speakable.flush() == ()


@settings(max_examples=300, deadline=None)
@given(MARKED)
def test_pieces_rise_and_verbatim_ones_are_what_was_written(text: str) -> None:
    end = 0
    for piece in pieces_of(text):
        assert end <= piece.original_start < piece.original_end <= len(text)
        if piece.is_verbatim and piece.text not in ("×", " ", "&"):
            assert len(piece.text) == len(text[piece.original_start : piece.original_end])
        end = piece.original_end


HOSTILE = {
    "stars": "*",
    "brackets": "[",
    "images": "![",
    "tags": "<a",
    "lone tags": "<",
    "closing tags": "</a",
    "unended tags": "<a ",
    "thoughts": "<think>",
    "backticks": "`",
    "fences": "```\n",
    "targets": "](",
    "bars": "|",
    "entities": "&am",
    "addresses": "http://",
    "halves of addresses": "htt",
    "dots of an address": ".",
    "mailboxes": "a@",
    "slashes": "/",
    "comments": "<!--",
    "emoji": "👋\u200d",
    "dashes": "-",
    "quotes": "> ",
    "hashes": "#",
    "backslashes": "\\",
    "one word": "a",
    "digits": "1",
    "numbered brackets": "[1",
    "dots of addresses": "http://x" + "." * 40,
    "tags with attributes": "<b x",
}


@pytest.mark.parametrize("mark", HOSTILE.values(), ids=HOSTILE)
def test_what_a_mark_costs_does_not_grow_with_their_number(mark: str) -> None:
    def cost_s(count: int, size: int) -> float:
        text = mark * count
        gc.disable()  # what the tests before left behind is not this one's cost
        began_s = time.thread_time()
        said(*(text[i : i + size] for i in range(0, len(text), size)))
        taken_s = time.thread_time() - began_s
        gc.enable()
        return taken_s

    for size in (7, 1_000_000):
        small, large = (min(cost_s(count, size) for _ in range(3)) for count in (400, 8000))
        assert large < 20 * 8 * small + 0.05, "twenty times as much: if each cost more for the others, 400 times"


def test_little_is_held_whatever_comes() -> None:
    for mark in HOSTILE.values():
        speakable = MarkupFilter()
        for _ in range(400):
            speakable.feed(mark)
            assert len(speakable._held) <= 256
