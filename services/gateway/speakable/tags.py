"""What a tag is, and what it hides. Pure; a body is what stands between `<` and `>`."""

from __future__ import annotations

from services.gateway.speakable import marks, skips

_LONGEST_NAME = 24


def is_tag(body: str) -> bool:
    """Whether that is a tag, and not a comparison and what follows it."""
    if body[0] in "/!?|｜" or "=" in body:
        return True
    return not any(map(str.isspace, body.rstrip(" \t/"))) or _name(body) in marks.BARE_ATTRIBUTES


def may_become_tag(body: str) -> bool:
    """Whether the text ended inside the name of a tag that hides something, or of one of a chat template."""
    name = body.lstrip("/").lower()
    return body[0] in "|｜" or (len(name) < _LONGEST_NAME and any(known.startswith(name) for known in marks.HIDDEN))


def is_between_words(body: str) -> bool:
    """Whether it parts the words around it."""
    return _name(body) in marks.BLANK_TAGS


def hidden_by(body: str) -> skips.Skip | None:
    """What is left out behind it, if anything."""
    control = body.lower()
    if control == marks.HIDES_THE_REST:
        return skips.Rest()
    if control in marks.CONTROLS:
        return skips.Until(marks.CONTROLS[control])
    if body[0] in "|｜" and (begins := marks.CONTROL_BEGINS.match(body)) is not None:
        return skips.Until(f"<{begins[1]}end{begins[2]}>")
    if body[0] == "/" or body.endswith("/") or _name(body) not in marks.HIDDEN:
        return None
    return skips.Element(body[: _name_end(body)])


def _name(body: str) -> str:
    """Its name without a namespace, in lower case; empty when it has none."""
    found = marks.TAG_NAME.match(body)
    return "" if found is None else found[1].lower().rpartition(":")[2]


def _name_end(body: str) -> int:
    found = marks.TAG_NAME.match(body)
    assert found is not None, "what is hidden is hidden by name"
    return found.end()
