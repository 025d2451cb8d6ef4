"""What mini says it can say is what it was taught."""

from __future__ import annotations

import json
from pathlib import Path

from tools.mini_voice.offline_sentences import offline_answers
from tools.mini_voice.repertoire import CHARACTERS, repertoire
from tools.mini_voice.text import Writer

MINI = Path(__file__).parents[2] / "voices" / "mini"


def test_the_voice_carries_it() -> None:
    assert json.loads((MINI / "repertoire.json").read_text(encoding="utf-8")) == repertoire()


def test_training_text_is_inside_it() -> None:
    writer = Writer(3, [("wonder", 1.0), ("it's", 1.0)], answers=offline_answers(50))
    read_as = repertoire()["read_as"]
    assert isinstance(read_as, dict)
    for _ in range(2000):
        assert set(writer.sentence()) <= set(CHARACTERS) | read_as.keys()
