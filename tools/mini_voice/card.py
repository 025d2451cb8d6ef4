"""The model card of an exported voice, from what was measured; it claims nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from tools.mini_voice.evaluate import Score
from tools.mini_voice.voices import RATE_WORDS_PER_MINUTE, VOICES

_CARD = """\
# mini

A Qwen3-TTS checkpoint in the official layout, small enough for two CPU cores: the voice of Voicemesh on a machine
without weights. Trained from nothing by `tools/mini_voice` on speech of a formant synthesiser, and sounds like one.

| | |
|---|---|
| voices | {voices} |
| language | English |
| trained on | {hours:.0f} hours of sentences of our own, spoken by espeak-ng ({recipes}) at {rate} words a minute |
| steps | codec {codec_steps}, talker {talker_steps} |
| parameters | talker and code predictor {talker_millions:.1f} M, codec decoder {codec_millions:.1f} M |
| made by | `python -m tools.mini_voice --work DIR`, then `DIR/mini` |

## Measured

{count} sentences that were not in training; pocketsphinx chooses among them. "Codec" is the synthesiser's speech as
codes, decoded again. Distance is mel-cepstral in dB, to the synthesiser, after time alignment.

| voice, layout | synthesiser | codec | mini | ended by itself | length | distance, codec | distance, mini |
|---|---|---|---|---|---|---|---|
{rows}

## Limits

{state}English text in ASCII letters, digits as single digits and small numbers. No cloning: the analysis that made its
codes is no convolution, so the encoder that the layout asks for holds random numbers. No instructions. Codes 6 to 15
carry nothing.

In an utterance of several sentences it loses its place: some words are skipped or said twice (how many: `docs/log.md`
of Voicemesh). `repertoire.json` says so (`steady_characters`), and the gateway speaks a text sentence by sentence;
whoever asks the talker itself should.

## Licence

Apache-2.0, like Voicemesh. espeak-ng (GPL-3) was run as a program to make training sound; none of its code or data is
in here. The lexicon that chose words was read from pocketsphinx (CMU, two-clause BSD) and is not stored.
"""


_UNFINISHED = """\
**Unfinished.** It is harder to understand than the synthesiser it learned from: the table says by how much.
Training can be continued from where it stopped.

"""


def card(
    scores: Sequence[Score],
    *,
    hours: float,
    codec_steps: int,
    talker_steps: int,
    talker_parameters: int,
    codec_parameters: int,
) -> str:
    """Markdown for README.md beside the weights."""
    return _CARD.format(
        voices=", ".join(voice.name for voice in VOICES),
        recipes=", ".join(f"{voice.name}: {voice.espeak_name}" for voice in VOICES),
        rate=RATE_WORDS_PER_MINUTE,
        hours=hours,
        codec_steps=codec_steps,
        talker_steps=talker_steps,
        talker_millions=talker_parameters / 1e6,
        codec_millions=codec_parameters / 1e6,
        count=scores[0].count,
        rows="\n".join(_row(score) for score in scores),
        state=_UNFINISHED if any(map(_short, scores)) else "",
    )


def _short(s: Score) -> bool:
    """Whether the voice is clearly harder to understand than the synthesiser it learned from."""
    return s.talker is not None and s.talker < s.synthesiser - 0.03 * s.count


def _row(s: Score) -> str:
    cells: list[str | float | None] = [
        f"{s.voice}, {s.layout}",
        s.synthesiser,
        s.codec,
        s.talker,
        s.ended,
        s.frame_ratio,
    ]
    cells += [s.codec_distance_db, s.talker_distance_db]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
