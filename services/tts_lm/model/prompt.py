"""What the talker reads, position by position, in every mode. Pure: token ids and codes in, rows out; no tensors.

Each position sums a text row and a codec row. Which text comes when is the `Script`; what stands before the first
frame is the `Prompt`. Source: model document section 4 (qwen-tts 0.1.1), held by tests/tts_lm/test_parity.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from services.tts_lm.model.config import ModelConfig

Layout = Literal["streaming", "whole"]
Frame = tuple[int, ...]
SPEAKER: Literal["speaker"] = "speaker"
CodecPart = None | int | Frame | Literal["speaker"]


@dataclass(frozen=True)
class PromptRow:
    """One position: a text id, and a control id, the codes of a frame, the speaker's vector, or nothing."""

    text: int
    codec: CodecPart = None


@dataclass(frozen=True)
class Speaker:
    """Who speaks: a control id, a vector given with the request, or nobody (voice design)."""

    control_id: int | None = None
    vector: tuple[float, ...] | None = None

    @property
    def part(self) -> CodecPart:
        if self.vector is not None:
            return SPEAKER
        return self.control_id


class Script:
    """The text rows of one utterance in the order they are read: reference, target, tts_eos, then tts_pad for ever."""

    def __init__(self, config: ModelConfig, reference: Sequence[int] = ()) -> None:
        self._eos, self._pad = config.tts_eos, config.tts_pad
        self._rows = list(reference)
        self._reference_count = len(self._rows)
        self._finished = False

    @property
    def finished(self) -> bool:
        return self._finished

    @property
    def target_count(self) -> int:
        """Tokens of the text to be spoken that are known so far."""
        return len(self._rows) - self._reference_count - self._finished

    @property
    def end(self) -> int | None:
        """How many rows are read when tts_eos has been, or None while the text is unfinished."""
        return len(self._rows) if self._finished else None

    def feed(self, ids: Sequence[int]) -> None:
        assert not self._finished, "text after the end"
        self._rows.extend(ids)

    def finish(self) -> None:
        if not self._finished:
            self._rows.append(self._eos)
            self._finished = True

    def row(self, index: int) -> int | None:
        """The text id of row `index`, or None when it is late."""
        if index < len(self._rows):
            return self._rows[index]
        return self._pad if self._finished else None

    def knows(self, count: int) -> bool:
        """Whether the first `count` rows are known."""
        return self._finished or count <= len(self._rows)

    def consumed(self, read: int) -> int:
        """Target tokens among the first `read` rows."""
        return max(0, min(read - self._reference_count, self.target_count))


@dataclass(frozen=True)
class Prompt:
    """Everything before the first new frame. `icl` are the frames of the reference, `resumed` those already spoken."""

    head: tuple[PromptRow, ...]
    layout: Layout
    icl: tuple[Frame, ...] | None
    resumed: tuple[Frame, ...]
    codec_pad: int
    codec_bos: int
    tts_pad: int

    def read_before_first_frame(self, script: Script) -> int | None:
        """Text rows in the prompt proper, or None while that is not known."""
        if self.layout == "whole":
            return script.end
        return 1 if self.icl is None else len(self.icl) + 1

    def ready(self, script: Script) -> bool:
        """Whether every row of the prompt is known."""
        read = self.read_before_first_frame(script)
        return read is not None and script.target_count > 0 and script.knows(read + len(self.resumed))

    def rows(self, script: Script) -> tuple[PromptRow, ...]:
        """All rows in order; only when `ready`."""
        read = self.read_before_first_frame(script)
        assert read is not None
        spoken: list[CodecPart] = [self.codec_bos, *(self.icl or ())]
        if self.layout == "whole":
            text = [PromptRow(self._text(script, i), self.codec_pad) for i in range(read)]
            suffix = text + [PromptRow(self.tts_pad, part) for part in spoken]
        else:
            suffix = [PromptRow(self._text(script, i), part) for i, part in enumerate(spoken)]
        resumed = [PromptRow(self._text(script, read + i), frame) for i, frame in enumerate(self.resumed)]
        return (*self.head, *suffix, *resumed)

    @staticmethod
    def _text(script: Script, index: int) -> int:
        row = script.row(index)
        assert row is not None, "the prompt was not ready"
        return row


def build_prompt(
    config: ModelConfig,
    *,
    role: Sequence[int],
    instruct: Sequence[int],
    language_id: int | None,
    speaker: Speaker,
    layout: Layout,
    icl: tuple[Frame, ...] | None = None,
    resumed: tuple[Frame, ...] = (),
) -> Prompt:
    """The prompt of one utterance; `role` and `instruct` are token ids, `instruct` with its markup."""
    codec, pad = config.codec, config.tts_pad
    if language_id is None:
        tag = [codec.nothink, codec.think_bos, codec.think_eos]
    else:
        tag = [codec.think, codec.think_bos, language_id, codec.think_eos]
    head = [PromptRow(index) for index in (*instruct, *role)]
    head += [PromptRow(pad, control) for control in tag]
    if speaker.part is not None:
        head.append(PromptRow(pad, speaker.part))
    head.append(PromptRow(config.tts_bos, codec.pad))
    return Prompt(tuple(head), layout, icl, resumed, codec.pad, codec.bos, pad)


def language_id(config: ModelConfig, language: str, voice: str | None) -> int | None:
    """The language's control id, None for automatic; a speaker's dialect replaces Chinese and automatic.

    Raises `KeyError` for a name that the model does not offer. Source: model document 4.2.
    """
    name = language.strip().lower() or "auto"
    dialect = config.speaker_dialects.get(voice.lower()) if voice else None
    if dialect is not None and name in ("chinese", "auto"):
        return config.languages[dialect]
    if name == "auto":
        return None
    if name not in offered_languages(config):
        raise KeyError(language)
    return config.languages[name]


def offered_languages(config: ModelConfig) -> tuple[str, ...]:
    """Names that may be asked for; dialects come with their speakers only."""
    return tuple(name for name in config.languages if "dialect" not in name)
