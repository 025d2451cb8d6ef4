"""The voice store: what was put in comes out, by name or id, on any replica, whatever happens in between."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from common.errors import Broken, InvalidRequest, UnknownName
from common.voice_store import VoiceStore

VECTOR = (0.1, -2.5e-7, 3.0)
CODES = tuple(tuple(range(i, i + 16)) for i in range(5))


def test_a_voice_comes_back_exactly_on_another_replica(tmp_path: Path) -> None:
    added = VoiceStore(tmp_path).add("Anna Lena", VECTOR, CODES, "Guten Morgen, 你好")
    for key in ("Anna Lena", "anna LENA", " Anna Lena "):
        assert VoiceStore(tmp_path).get(key) == added
    assert (added.speaker_vector, added.codes, added.reference_text) == (VECTOR, CODES, "Guten Morgen, 你好")


def test_a_voice_is_found_by_its_id_even_after_its_name_is_gone(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    added = store.add("a", VECTOR, CODES, "")
    store.remove("A")
    assert store.get(added.voice_id).codes == CODES
    with pytest.raises(UnknownName):
        store.get("a")
    with pytest.raises(UnknownName):
        store.remove("a")


def test_the_same_content_is_kept_once_and_a_name_can_move_on(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    first, twin = store.add("a", VECTOR, CODES, "x"), store.add("b", VECTOR, CODES, "x")
    assert first.voice_id == twin.voice_id
    assert len(list((tmp_path / "content").iterdir())) == 1
    moved = store.add("A", VECTOR, CODES, "y")
    assert store.get("a") == moved
    assert store.names() == ["A", "b"]


@pytest.mark.parametrize(
    "name", ["", "  ", "../x", "a/b", "a\\b", ".hidden", "a\x00b", "line\nbreak", "x" * 65, "0" * 64, "\ud800"]
)
def test_a_name_that_could_do_harm_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        VoiceStore(tmp_path).add(name, VECTOR, CODES, "")
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("key", ["../names", "nobody", "", "\ud800", "f" * 64, "x" * 10_000])
def test_an_unknown_key_is_unknown_and_nothing_else(tmp_path: Path, key: str) -> None:
    with pytest.raises(UnknownName):
        VoiceStore(tmp_path).get(key)


@pytest.mark.parametrize(
    ("vector", "codes", "text"),
    [
        ((), (), ""),
        (VECTOR, ((1, 2), (1,)), ""),
        ((float("nan"),), (), ""),
        (VECTOR, (), "x" * 10_001),
        (VECTOR, (), "\ud800"),
    ],
    ids=["nothing", "ragged codes", "NaN", "long text", "half a character"],
)
def test_what_is_no_voice_is_refused(tmp_path: Path, vector: tuple[float, ...], codes: object, text: str) -> None:
    with pytest.raises(InvalidRequest):
        VoiceStore(tmp_path).add("a", vector, codes, text)  # type: ignore[arg-type]


def test_a_damaged_or_missing_file_is_said(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    added = store.add("a", VECTOR, CODES, "x")
    path = tmp_path / "content" / f"{added.voice_id}.json"
    path.write_bytes(path.read_bytes().replace(b"3.0", b"4.0"))
    with pytest.raises(Broken):
        store.get("a")
    path.unlink()
    with pytest.raises(Broken):
        store.get("a")


def test_a_reader_never_sees_half_a_voice(tmp_path: Path) -> None:
    store, stop, seen = VoiceStore(tmp_path), threading.Event(), set()
    store.add("a", VECTOR, CODES, "0")

    def read() -> None:
        while not stop.is_set():
            seen.add(VoiceStore(tmp_path).get("a").reference_text)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(100):
        store.add("a", VECTOR, CODES * (i % 7 + 1), str(i))
    stop.set()
    reader.join()
    assert seen <= {str(i) for i in range(100)}
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
