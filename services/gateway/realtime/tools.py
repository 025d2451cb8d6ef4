"""`session.tools` in OpenAI's words ↔ the brain's tools. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct
from voicemesh.brain.v1 import brain_pb2

from services.gateway.realtime.commands import MAX_TEXT_CHARACTERS, Refusal, value

MAX_TOOLS = 64
MAX_NAME_CHARACTERS = 128


def tools_of(session: Mapping[str, Any], before: Sequence[brain_pb2.Tool]) -> tuple[brain_pb2.Tool, ...]:
    """The functions that a session may have called; with the choice `none` there are none."""
    choice = session.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        message = "'tool_choice' is auto or none: the brain decides."
        raise Refusal(message, "unsupported_parameter", "session.tool_choice")
    given = value(session, "tools", list, None, "session.")
    if choice == "none":
        return ()
    if given is None:
        return tuple(before)
    if len(given) > MAX_TOOLS:
        raise Refusal(f"At most {MAX_TOOLS} tools are taken.", "invalid_value", "session.tools")
    tools = tuple(_tool(tool) for tool in given)
    if len({tool.name for tool in tools}) < len(tools):
        raise Refusal("Every tool has a name of its own.", "invalid_value", "session.tools")
    return tools


def tools_object(tools: Sequence[brain_pb2.Tool]) -> list[dict[str, Any]]:
    """As a session shows them."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": MessageToDict(tool.parameters),
        }
        for tool in tools
    ]


def _tool(given: Any) -> brain_pb2.Tool:
    path = "session.tools."
    if not isinstance(given, dict) or given.get("type", "function") != "function":
        raise Refusal("A tool is a function.", "unsupported_parameter", path[:-1])
    name = str(value(given, "name", str, path=path))
    description = str(value(given, "description", str, "", path))
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or len(description) > MAX_TEXT_CHARACTERS:
        raise Refusal("A tool has a short name, and a description that can be read.", "invalid_value", path[:-1])
    parameters = value(given, "parameters", dict, {}, path)
    try:
        return brain_pb2.Tool(name=name, description=description, parameters=ParseDict(parameters, Struct()))
    except (ParseError, ValueError, TypeError):
        raise Refusal("'parameters' is a JSON schema.", "invalid_value", f"{path}parameters") from None
