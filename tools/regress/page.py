"""The page to listen at: each sentence streamed beside whole, with what was measured."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from tools.regress.measure import Sound
from tools.regress.words import Walk

LAYOUTS = ("streaming", "whole")


@dataclass(frozen=True)
class Take:
    """One text in one layout; `file` is relative to the page."""

    text: str
    layout: str
    file: str
    sound: Sound
    walk: Walk | None
    recognised: bool | None
    ended: bool


_STYLE = (
    "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #ccc;padding:.4em .8em;text-align:left;vertical-align:top}.bad{color:#b00}"
)


def page(title: str, summary: Sequence[str], takes: Sequence[Take]) -> str:
    """A page that needs nothing but the sounds beside it."""
    by_text: dict[str, dict[str, Take]] = {}
    for take in takes:
        by_text.setdefault(take.text, {})[take.layout] = take
    rows = "".join(_row(text, pair) for text, pair in by_text.items())
    points = "".join(f"<li>{html.escape(line)}</li>" for line in summary)
    heads = "".join(f"<th>{layout}</th>" for layout in LAYOUTS)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><ul>{points}</ul>"
        f"<table><tr><th>text</th>{heads}</tr>{rows}</table></html>"
    )


def _row(text: str, pair: dict[str, Take]) -> str:
    short = text if len(text) <= 300 else text[:297] + "…"
    cells = "".join(f"<td>{_cell(pair[layout]) if layout in pair else ''}</td>" for layout in LAYOUTS)
    return f"<tr><td>{html.escape(short)}</td>{cells}</tr>"


def _cell(take: Take) -> str:
    sound = take.sound
    facts = [
        f"{sound.seconds:.2f} s, {sound.level_db:.1f} dB, pause {sound.longest_pause_s:.2f} s, joins {sound.joins:.2f}"
    ]
    faults = []
    if take.walk is not None and (take.walk.skipped or take.walk.repeated):
        faults.append(f"{take.walk.skipped} skipped, {take.walk.repeated} repeated of {take.walk.total}")
    if take.recognised is False:
        faults.append("not recognised")
    if not take.ended:
        faults.append("did not end by itself")
    lines = facts + [f"<span class='bad'>{html.escape(fault)}</span>" for fault in faults]
    return f"<audio controls preload='none' src='{html.escape(take.file)}'></audio><br>" + "<br>".join(lines)
