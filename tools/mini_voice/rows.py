"""What the talker sees of one utterance, row by row, with what it must say there: both layouts, pure NumPy.

Agrees with services/tts_lm/model/prompt.py by test. Source of the layouts: model document 4.3 to 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.mini_voice.dimensions import FIRST_SPEAKER_ID, USED_CODEBOOKS, control_id, model_and_codec_config

NOTHING = -1
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the layout; `role` are the tokens of `<|im_start|>assistant\\n`."""

    role: tuple[int, ...]
    tts_pad: int
    tts_bos: int
    tts_eos: int
    english: int

    @classmethod
    def of(cls, assistant_and_newline: Sequence[int]) -> SpecialIds:
        model, _ = model_and_codec_config()
        return cls(
            role=(model["im_start_token_id"], *assistant_and_newline),
            tts_pad=model["tts_pad_token_id"],
            tts_bos=model["tts_bos_token_id"],
            tts_eos=model["tts_eos_token_id"],
            english=model["talker_config"]["codec_language_id"]["english"],
        )


@dataclass(frozen=True)
class Rows:
    """R rows. Row r reads text[r] and, where not NOTHING, codec[r] plus the residual codes[r]; it must answer label[r].

    `frame[r]` is the frame that row r predicts (NOTHING in the prompt, the frame count at the end of speech);
    `target[r]` the row of the token spoken in that frame, where that row has been read.
    """

    text: Ids
    codec: Ids
    codes: Ids  # [R, used books − 1]
    label: Ids
    frame: Ids
    target: Ids

    def __len__(self) -> int:
        return len(self.text)


def build(
    ids: SpecialIds,
    tokens: Sequence[int],
    codes: Ids,
    spoken: Ids,
    voice: int,
    *,
    whole: bool,
    auto_language: bool = False,
) -> Rows:
    """`codes` [F, used books], `spoken` [F] token indices (len(tokens): the end), `voice` an index of VOICES."""
    head_text, head_codec = _head(ids, voice, auto_language)
    count, frame_count = len(tokens), len(codes)
    script = [*tokens, ids.tts_eos]
    first_text = len(head_text)
    bos = control_id("codec_bos_id")
    if whole:
        text = [*head_text, *script, ids.tts_pad] + [ids.tts_pad] * frame_count
        codec = [*head_codec, *[control_id("codec_pad_id")] * len(script), bos]
    else:
        text = head_text + [script[i] if i < len(script) else ids.tts_pad for i in range(frame_count + 1)]
        codec = [*head_codec, bos]
    first = len(codec) - 1  # this row predicts frame 0
    total = first + frame_count + 1
    residual = np.full((total, USED_CODEBOOKS - 1), NOTHING, np.int64)
    residual[first + 1 :] = codes[:, 1:]
    label, frame, target = (np.full(total, NOTHING, np.int64) for _ in range(3))
    label[first:-1], label[-1] = codes[:, 0], control_id("codec_eos_token_id")
    frame[first:] = np.arange(frame_count + 1)
    target[first:-1] = first_text + np.minimum(spoken, count)
    target[target > np.arange(total)] = NOTHING
    return Rows(np.array(text), np.array([*codec, *codes[:, 0]]), residual, label, frame, target)


def _head(ids: SpecialIds, voice: int, auto_language: bool) -> tuple[list[int], list[int]]:
    if auto_language:
        tag = [control_id(f"codec_{name}_id") for name in ("nothink", "think_bos", "think_eos")]
    else:
        think, begin, end = (control_id(f"codec_{name}_id") for name in ("think", "think_bos", "think_eos"))
        tag = [think, begin, ids.english, end]
    codec = [NOTHING] * len(ids.role) + [*tag, FIRST_SPEAKER_ID + voice, control_id("codec_pad_id")]
    text = [*ids.role] + [ids.tts_pad] * (len(tag) + 1) + [ids.tts_bos]
    return text, codec
