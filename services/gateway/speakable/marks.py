"""Which characters and names are markup: tables for the filter. Pure."""

from __future__ import annotations

import re

TAIL_CHARACTERS = 64
"""How far back a rule may look: what decides about a character lies no further before it."""
MAX_TAG_CHARACTERS = 256
MAX_TARGET_CHARACTERS = 2048
MAX_LABEL_CHARACTERS = 1000


def _ranges(*ranges: tuple[int, int]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_PICTURES = _ranges(
    (0x20E3, 0x20E3),  # the key of a keycap; its digit is spoken
    (0x2139, 0x2139),
    (0x2194, 0x21FF),  # arrows; → and its three sisters are used as words
    (0x2300, 0x243F),
    (0x24C2, 0x24C2),
    (0x2500, 0x2775),  # boxes, shapes, weather, chess, music, dingbats; the digits in circles between them are numbers
    (0x2794, 0x27BF),
    (0x2900, 0x297F),
    (0x2B00, 0x2BFF),
    (0x3030, 0x3030),
    (0x303D, 0x303D),
    (0xFE00, 0xFE0F),  # how to draw the character before
    (0x1F000, 0x1FBFF),  # everything with a face, flags and skin tones included
    (0x1FC00, 0x1FFFD),
    (0xE0000, 0xE0FFF),  # tags: the flags of England, Scotland and Wales
)
_UNSPEAKABLE = _ranges(
    (0x00, 0x08),
    (0x0B, 0x0C),
    (0x0E, 0x1F),
    (0x7F, 0x84),
    (0x86, 0x9F),
    (0x200B, 0x200B),
    (0x2060, 0x2060),
    (0xD800, 0xDFFF),  # halves of surrogate pairs are no text
    (0xE000, 0xF8FF),  # private: icons of some font
    (0xFDD0, 0xFDEF),
    (0xFEFF, 0xFEFF),
    (0xFFF0, 0xFFFB),
    (0xFFFD, 0xFFFF),
    (0xF0000, 0x10FFFF),
)
JOINER = "\u200d"
JUNK = re.compile(f"[{_PICTURES}{_UNSPEAKABLE}][{_PICTURES}{_UNSPEAKABLE}{JOINER}]*")
IS_JUNK = re.compile(f"[{_PICTURES}{_UNSPEAKABLE}{JOINER}]")

PLAIN = re.compile(rf"[^*_`~\[\]<>|\\&@/!#\n{JOINER}{_PICTURES}{_UNSPEAKABLE}]+")
"""What is spoken wherever it stands but at the start of a line and in an address."""
MAY_VANISH = frozenset("*_`~[]<>|\\&@/!#-+=:hHwW")
"""What may be left out when more is known; h and w begin addresses."""
BLANKS = re.compile(r"[ \t\r]+")
BULLETS = frozenset("•‣◦·∙")

ADDRESS = re.compile(
    r"(?<![A-Za-z0-9_/.-])(?:https?://|www\.(?=[^\s.])|(?:h|ht|htt|https?|https?:|https?:/|w|ww|www|www\.)\Z)", re.I
)
"""An address, or what may become one when more is known. Without a scheme only `www.` is one: of `example.com` the
first word has been spoken when its dot arrives, and the rest reads well."""
DOMAIN = re.compile(
    r"[A-Za-z0-9-]\.(?:com|org|net|io|dev|edu|gov|co|ai|app|info|me|eu|us|uk|de|fr|it|es|nl|cn|jp|ru|in)\Z"
)
"""What comes before a slash, when what comes behind it is a path."""
URL = re.compile(r"(?:[A-Za-z0-9%/#=&+$@(\u00c0-\u024f-]|[.,;:!?')_~]{1,8}(?=[A-Za-z0-9%/#=&+$@(\u00c0-\u024f-]))+")
URL_ENDS = re.compile(r"[.,;:!?')_~]{1,9}")
MAIL = re.compile(r"(?:[A-Za-z0-9-]|\.{1,8}(?=[A-Za-z0-9-]))+")
MAIL_ENDS = re.compile(r"\.{1,9}")
MAILBOX = re.compile(r"[A-Za-z0-9._%+-]")

ENTITIES = {"amp": "&", "quot": '"', "apos": "'", "nbsp": " ", "lt": " ", "gt": " ", "hellip": "…", "mdash": "—"}
ENTITIES |= {"ndash": "–", "copy": "©", "#39": "'", "#x27": "'", "#34": '"', "#38": "&", "#160": " "}
LONGEST_ENTITY = max(map(len, ENTITIES)) + 2

CITATION = re.compile(r"\[\d{1,3}\]")
PARTIAL_CITATION = re.compile(r"\[\d{0,3}\Z")
TASK_BOX = re.compile(r"\[[ xX]\]")
PARTIAL_TASK_BOX = re.compile(r"\[[ xX]?\Z")

TAG_BEGINS = re.compile(r"[A-Za-z/!?|｜]")
TAG_ENDS = re.compile(r"[<>\n]")
TAG_NAME = re.compile(r"/?\s*([A-Za-z][\w:.-]*)")
_BLANK_TAGS = "br p div li ul ol tr td th h1 h2 h3 h4 h5 h6 hr table section article blockquote"
BLANK_TAGS = frozenset(_BLANK_TAGS.split())
"""Tags between words."""
_BARE_ATTRIBUTES = "audio video button details dialog input option script select textarea"
BARE_ATTRIBUTES = frozenset(_BARE_ATTRIBUTES.split())
"""Tags that may hold attributes without a value; in others `=` tells a tag from a comparison."""
_HIDDEN = (
    "think thinking thought thoughts reasoning reflection scratchpad analysis "
    "tool_call tool_calls tool_use tool_code tool_response tool_result tool_results tool_output tool_outputs "
    "function function_call function_calls function_response function_result function_results invoke "
    "script style pre svg math"
)
HIDDEN = frozenset(_HIDDEN.split())
"""Tags whose content is not for the voice either."""
CONTROLS = {
    "|channel|": "final<|message|>",
    "|start|": "final<|message|>",
    "|im_start|": "\n",
    "|start_header_id|": "<|end_header_id|>",
    "|tool_call|": "<|/tool_call|>",
}
"""Tokens of chat templates that hide what follows them, and what ends that."""
CONTROL_BEGINS = re.compile(r"(.*(?:tool|think|function|call).*)(?:begin|start)([|｜])\Z", re.I)
TOOL_CALLS = "[TOOL_CALLS]"
HIDES_THE_REST = "|python_tag|"
