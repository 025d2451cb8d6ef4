"""What the suite says: 60 short sentences, 20 long ones, two texts of ten minutes. Our own, and always the same."""

from __future__ import annotations

import re

from tools.mini_voice.phrases import WORDS
from tools.mini_voice.text import Writer

_DIGITS = (
    "My number is 4 7 1 9.", "The code is 8 0 2 5.", "I need 12 eggs and 30 apples.",
    "There were 45 people in the room.", "Call 5 5 5 1 2 3 4, please.", "It is 7 o'clock.",
    "Platform 9 is closed.", "Page 64 is missing.", "She is 18 and he is 21.", "We sold 99 tickets.",
    "Room 3 0 4 is on the left.", "Count to 10 and stop.", "The answer is 42.", "Bus 16 stops here.",
    "Turn to channel 6.",
)  # fmt: skip
_NAMES = (
    "Michael met Sarah in London.", "Doctor Thomas lives in Vienna.", "Have you seen Rachel today?",
    "William and Emma are from Boston.", "Charles wrote to Julia.", "Mark Taylor plays the piano.",
    "Is George still in Madrid?", "Alice took the train to Oslo.", "Peter knows Helen well.",
    "Nancy and Kevin opened a shop.", "Oscar called from Denver.", "Laura thanked Mister Brown.",
    "Daniel found Grace in the garden.", "Lucy sings and Simon dances.", "Victor left Lisbon on Friday.",
)  # fmt: skip
_QUESTIONS = (
    "Where is the nearest station?", "Why did the lamp go out?", "Who left the door open?",
    "How far is the lake?", "Can you hear me now?", "Do you want tea or coffee?",
    "What time does the shop close?", "Is it going to rain?", "Could you say that again, please?",
    "When does the film begin?", "Which road goes to the village?", "Have they found the key?",
    "Shall we wait for the others?", "Are you sure about that?", "Would you like some more?",
)  # fmt: skip
_EMPHASIS = (
    "That is not what I said!", "I never, ever forget a face!", "Stop at once!", "What a beautiful morning!",
    "It was the red one, not the blue one.", "You must see this!", "No, no, and once more no!",
    "This is the last time!", "I did lock the door!", "Only you could do that!", "Never again!",
    "Now that is a real surprise!", "He said yes, but he meant no.", "We won, we really won!",
    "Be careful, it is very hot!",
)  # fmt: skip
SHORT: tuple[str, ...] = _DIGITS + _NAMES + _QUESTIONS + _EMPHASIS

LONG: tuple[str, ...] = (
    "When the rain had stopped and the clouds were gone, we opened the windows and let the cool air into the house.",
    "The teacher asked every student to write down one question, and then she answered them all with patience.",
    "If you follow the river until you reach the old bridge, you will see a white house behind three tall trees.",
    "My brother bought a bicycle, a lamp, two blankets and a map, because he wants to go to Spain in the spring.",
    "In the middle of the night the telephone rang, but nobody answered it, and after a while it was quiet again.",
    "She told me that the train would leave at seven, so I was surprised to find an empty platform at half past six.",
    "There are people who read the last page of a book first, and there are people who would never do such a thing.",
    "The doctor listened for a long time, wrote something on a small piece of paper, and said that all would be well.",
    "Although the market was crowded and noisy, the old woman sat on her chair and slept as if she were at home.",
    "He counted the money once, twice, three times, and every time the result was a little different from the last.",
    "After dinner the children went into the garden, where they played with the dog until it was too dark to see.",
    "I would like a cup of coffee, two slices of bread with butter and honey, and a glass of cold water, please.",
    "The engine made a strange sound, the lights went out one after another, and then the whole ship was silent.",
    "Nobody in the village could remember a winter as long and as cold as the one that began that November.",
    "First you open the box, then you take out the small key, and only then do you look at the letter inside it.",
    "What would you say if I told you that the picture over the table was painted by my own grandfather?",
    "On Monday we cleaned the kitchen, on Tuesday we painted the door, and on Wednesday we did nothing at all.",
    "The captain looked at the sky, looked at the sea, looked at his watch, and decided to wait until the morning.",
    "Emma and Henry live in a small flat in Boston, but every summer they spend a month with their friends in Italy.",
    "It was not the answer that I had hoped for, but it was honest, and so I thanked him and closed the door.",
)


WORDS_A_MINUTE = 140


def ten_minutes(seed: int) -> str:
    """About 1,400 words in short sentences, without digits: some ten minutes at 140 words a minute."""
    writer, sentences, count = Writer(seed, [(noun, 1.0) for noun in WORDS["noun"].split()]), [], 0
    while count < 10 * WORDS_A_MINUTE:
        sentence = writer.pattern()
        if not any(character.isdigit() for character in sentence):
            sentences.append(sentence)
            count += len(sentence.split())
    return " ".join(sentences)


def minutes(text: str) -> list[str]:
    """Whole sentences, about a minute in each part."""
    parts: list[list[str]] = [[]]
    for sentence in re.split(r"(?<=[.?!])\s+", text):
        if sum(len(said.split()) for said in parts[-1]) >= WORDS_A_MINUTE:
            parts.append([])
        parts[-1].append(sentence)
    if len(parts) > 1 and sum(len(said.split()) for said in parts[-1]) < WORDS_A_MINUTE / 2:
        parts[-2] += parts.pop()
    return [" ".join(part) for part in parts]
