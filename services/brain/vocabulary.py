"""What a Hugging Face tokenizer is, beyond encoding: its fingerprint, its detokeniser, its chat template's prompt.

Knows `tokenizers` and nothing of models. Shared by the backends that run a model themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from common.errors import InvalidRequest
from common.fingerprint import tokenizer_fingerprint
from services.brain.prompt import ChatMessage, Conversation, for_template, shorter, template_tools
from services.brain.tokens import AnswerParser
from services.brain.types import Role


class Vocabulary:
    """Wraps a fast tokenizer of transformers (`tokenizer`), whatever its class."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        added = self._backend.get_added_tokens_decoder()
        self._silent = frozenset(index for index, token in added.items() if token.special)
        spellings = [re.escape(token.content) for token in added.values() if token.special]
        self._control = re.compile("|".join(spellings) or r"(?!)")
        self.fingerprint = fingerprint_of(self._backend)
        if not tokenizer.chat_template:
            raise InvalidRequest("the model's tokenizer has no chat template: it cannot hold a conversation")

    def parser(self, stop: Sequence[str], reads_calls: bool) -> AnswerParser:
        """A new reading of an answer."""
        stream = DecodeStream(skip_special_tokens=True)
        return AnswerParser(lambda token: stream.step(self._backend, token), self._silent, stop, reads_calls)

    def render(self, conversation: Conversation) -> str:
        """The prompt as text, up to where the answer goes on; one audio place for each recording."""
        messages, _ = for_template(self._harmless(conversation))
        text: str = self.tokenizer.apply_chat_template(
            messages,
            tools=template_tools(conversation.tools) or None,
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,
        )
        return text + conversation.partial_answer

    def render_before(self, conversation: Conversation) -> str:
        """What every prompt begins with in which a person speaks next."""
        mark = "\ufffe"
        message = ChatMessage(Role.USER, mark)
        whole = self.render(replace(conversation, messages=(*conversation.messages, message), partial_answer=""))
        return whole[: whole.rindex(mark)]

    def _harmless(self, conversation: Conversation) -> Conversation:
        """Nobody's words may hold control tokens: their spellings are removed."""
        messages = tuple(replace(said, text=self._control.sub("", said.text)) for said in conversation.messages)
        return replace(
            conversation, messages=messages, partial_answer=self._control.sub("", conversation.partial_answer)
        )

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered prompt; its control tokens are control tokens."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def fit(self, conversation: Conversation, room: int, length: Callable[[Conversation], int]) -> Conversation:
        """The conversation with as much of its history as fits `room` tokens, dropped from the oldest in blocks."""
        while length(conversation) > room:
            less = shorter(conversation)
            if less is None:
                raise InvalidRequest("the turn is longer than the model's context", reason="TOO_LARGE")
            conversation = less
        return conversation


def fingerprint_of(tokenizer: Tokenizer) -> str:
    """By the rule of `common.fingerprint`: ordinary byte-level tokens and merges, added tokens left out.

    "" for a tokenizer that is no byte-level BPE: its ids mean nothing to the speech model.
    """
    data = json.loads(tokenizer.to_str())
    model = data["model"]
    if model.get("type") != "BPE":
        return ""
    added = {entry["content"] for entry in data.get("added_tokens") or ()}
    letters = _byte_letters()

    def spell(token: str) -> bytes | None:
        return bytes(letters[char] for char in token) if all(char in letters for char in token) else None

    vocabulary = {
        spelled: int(index)
        for token, index in model["vocab"].items()
        if token not in added and (spelled := spell(token)) is not None
    }
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    merges = [(spell(left) or b"", spell(right) or b"") for left, right in pairs]
    return tokenizer_fingerprint(vocabulary, merges)


def _byte_letters() -> dict[str, int]:
    """The letters in which byte-level BPE writes bytes: printable ones as themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
