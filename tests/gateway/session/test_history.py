"""What the brain is told of what was said: turns whole, answers as heard."""

from voicemesh.brain.v1 import brain_pb2

from services.gateway.session.history import CUT_ENTRIES, MAX_ENTRIES, History

USER, ASSISTANT = brain_pb2.ROLE_USER, brain_pb2.ROLE_ASSISTANT


def told(history, turn):
    return [(message.role, message.text, message.interrupted) for message in history.before(turn)]


def test_a_turn_sees_what_came_before_it_and_not_itself():
    history = History(1000)
    history.person(0, "hello", b"")
    history.answer(0, 1, "Good day!", interrupted=False)
    history.person(1, "tell me a story", b"")
    history.answer(1, 2, "Once upon", interrupted=True)
    assert told(history, 1) == [(USER, "hello", False), (ASSISTANT, "Good day!", False)]
    assert told(history, 2)[2:] == [(USER, "tell me a story", False), (ASSISTANT, "Once upon", True)]


def test_an_answer_of_which_nothing_was_heard_never_happened():
    history = History(1000)
    history.person(0, "hello", b"")
    history.answer(0, 1, "  ", interrupted=True)
    assert told(history, 1) == [(USER, "hello", False)]


def test_a_reopened_turn_replaces_itself_and_a_dropped_one_leaves_no_trace():
    history = History(1000)
    history.person(0, "I would", b"")
    history.person(0, "I would like tea", b"")
    assert told(history, 1) == [(USER, "I would like tea", False)]
    before = history.revision
    history.withdraw(0)
    assert (told(history, 1), history.revision > before) == ([], True)
    history.withdraw(0)
    assert history.revision == before + 1, "what changes nothing is no change"


def test_a_transcript_takes_the_place_of_the_audio():
    history = History(1000)
    history.person(0, "", b"\1\2")
    assert history.before(1)[0].audio == b"\1\2"
    history.transcript(0, "what time is it")
    assert (history.before(1)[0].audio, history.before(1)[0].text) == (b"", "what time is it")


def test_an_answer_that_goes_on_is_taken_back():
    history = History(1000)
    history.person(0, "count", b"")
    history.answer(0, 1, "one two", interrupted=True)
    assert history.forget_answer(1) == "one two"
    history.answer(0, 2, "one two three", interrupted=False)
    assert told(history, 1)[1:] == [(ASSISTANT, "one two three", False)]


def test_a_tool_that_answers_late_stands_with_its_turn():
    history = History(1000)
    call, result = brain_pb2.ToolCall(id="a", name="weather"), brain_pb2.ToolResult(id="a", content="sun")
    history.person(0, "weather?", b"")
    history.person(1, "never mind", b"")
    history.called(0, 1, [(call, result)])
    history.answer(1, 2, "Good.", interrupted=False)
    history.called(1, 2, [(call, result)])
    tool = (brain_pb2.ROLE_TOOL, "sun", False)
    assert told(history, 2) == [
        (USER, "weather?", False), (ASSISTANT, "", False), tool,
        (USER, "never mind", False), (ASSISTANT, "", False), tool, (ASSISTANT, "Good.", False),
    ]  # fmt: skip


def test_audio_beyond_the_limit_goes_oldest_first():
    history = History(100)
    for turn in range(4):
        history.person(turn, "", bytes(40))
    kept = [len(message.audio) for message in history.before(4)]
    assert sum(kept) <= 100
    assert kept[0] == 0
    assert kept[-1] == 40


def test_the_history_is_bounded():
    history = History(100)
    for turn in range(MAX_ENTRIES + 1):
        history.person(turn, f"turn {turn}", b"")
    entries = history.before(MAX_ENTRIES + 1)
    assert len(entries) == MAX_ENTRIES + 1 - CUT_ENTRIES
    assert entries[-1].text == f"turn {MAX_ENTRIES}"
