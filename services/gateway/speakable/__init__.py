"""What a voice may say of what a language model writes.

    speakable = SpeakableFilter()
    for delta in answer:
        for piece in speakable.feed(delta):
            say(piece.text)          # stands for the characters original_start … original_end of the answer
    for piece in speakable.flush():
        say(piece.text)

The transcript keeps the original; `OffsetMap` tells how far in it one is who has heard so much of what was spoken.
`SpeakableText` is both, for strings.
"""

from services.gateway.speakable.pieces import OffsetMap, Piece
from services.gateway.speakable.spoken import Normalisation
from services.gateway.speakable.text import SpeakableFilter, SpeakableText

__all__ = ["Normalisation", "OffsetMap", "Piece", "SpeakableFilter", "SpeakableText"]
