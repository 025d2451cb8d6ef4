from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from tools.mini_voice import train_codec, train_talker, vocabulary
from tools.mini_voice.batches import Batcher
from tools.mini_voice.clock import Clock
from tools.mini_voice.codebooks import Codebooks, fit, pitch_features
from tools.mini_voice.codec_net import Snake
from tools.mini_voice.corpus import Corpus
from tools.mini_voice.dimensions import CODEBOOK_COUNT, CODEBOOK_SIZE, ENTRY_WIDTH, USED_CODEBOOKS
from tools.mini_voice.features import FRAME_SAMPLES, frames_of, log_mel, pitch
from tools.mini_voice.muon import orthogonal
from tools.mini_voice.rows import NOTHING
from tools.mini_voice.sound import SoundBank, linear, mu_law

PLAN = train_talker.TalkerPlan(steps=3, rows=200, short_steps=3, bfloat16=False, residual_share=1.0)


def test_a_corpus_comes_back_from_its_file(corpus: Corpus, tmp_path: Path) -> None:
    corpus.save(tmp_path / "corpus.lzma")
    found = Corpus.load(tmp_path / "corpus.lzma")
    assert found.texts == corpus.texts
    for name in ("voices", "offsets", "codes", "chars", "phones"):
        assert np.array_equal(getattr(found, name), getattr(corpus, name)), name


def test_sound_comes_back_within_the_noise_of_mu_law(tmp_path: Path) -> None:
    samples = (20000 * np.sin(np.arange(3 * FRAME_SAMPLES) / 20)).astype(np.int16)
    error = linear(mu_law(samples)).astype(float) - samples
    assert 10 * np.log10(np.square(samples.astype(float)).mean() / np.square(error).mean()) > 35
    bank = SoundBank(
        samples, np.zeros((3, USED_CODEBOOKS), np.uint16), np.array([0, 2, 3]), voices=np.array([1, 0], np.uint8)
    )
    bank.save(tmp_path / "sound.lzma")
    found = SoundBank.load(tmp_path / "sound.lzma").first(2)
    assert found.offsets.tolist() == [0, 2]
    assert found.voices.tolist() == [1]
    assert len(found.samples) == 2 * FRAME_SAMPLES


def test_pitch_is_found_and_silence_has_none() -> None:
    time = np.arange(10 * FRAME_SAMPLES) / 24000
    harmonics = [np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 9)]
    voice = (0.2 * np.sum(harmonics, axis=0)).astype(np.float32)
    found = pitch(frames_of(voice).ravel())
    assert np.abs(found[1:-1] - 120).max() < 2
    assert pitch(np.zeros(2 * FRAME_SAMPLES, np.float32)).max() == 0
    assert log_mel(voice).shape == (10, 8, 40)


def test_codes_find_the_entries_they_were_made_from(tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    mel = torch.randn(1600, 8, 40, generator=chance).cumsum(1)
    hz = 100 + 50 * torch.rand(1600, 8, generator=chance)
    phones = torch.rand(1600, 4, generator=chance)
    fit(mel, list(torch.split(hz, 400)), phones).save(tmp_path / "books.npz")
    books = Codebooks.load(tmp_path / "books.npz")
    codes = books.encode(mel[:400], hz[:400])
    assert codes.shape == (400, CODEBOOK_COUNT)
    assert not codes[:, USED_CODEBOOKS:].any()
    assert not books.entries[USED_CODEBOOKS:].any()
    envelope = books.envelope(mel[:400])
    left = envelope.var()
    for book in (0, *range(2, USED_CODEBOOKS)):
        envelope = envelope - books.entries[book, codes[:, book], : envelope.shape[1]]
        assert envelope.var() < left
        left = envelope.var()
    track = pitch_features(hz[:400], books.pitch_centre)
    assert (track - books.entries[1, codes[:, 1], -track.shape[1] :]).var() < 0.9 * track.var()


def test_a_batch_depends_on_its_step_alone(corpus: Corpus, tokenizer: Tokenizer) -> None:
    a, b = Batcher(corpus, tokenizer), Batcher(corpus, tokenizer)
    b.draw(5, 300, 100, 0.1, 0.5)
    first, second = a.draw(9, 300, 100, 0.1, 0.5), b.draw(9, 300, 100, 0.1, 0.5)
    assert all(torch.equal(x, y) for x, y in zip(vars(first).values(), vars(second).values(), strict=True))
    assert (first.text.shape[0]) * first.text.shape[1] <= 330


def test_a_chain_is_the_joined_text_and_every_frame_looks_at_its_own_part(corpus: Corpus, tokenizer: Tokenizer) -> None:
    links = [4, 9, 2]
    whole = Batcher(corpus, tokenizer)._spoken(links)
    parts = [Batcher(corpus, tokenizer)._spoken([link]) for link in links]
    assert whole.tokens == vocabulary.encode(tokenizer, " ".join(corpus.texts[link] for link in links))[0]
    assert np.array_equal(whole.codes, np.concatenate([part.codes for part in parts]))
    ends = np.cumsum([len(part.codes) for part in parts])
    for end, (before, after) in zip(ends[:-1], pairwise(parts), strict=True):
        assert whole.token_of_frame[end - 1] <= whole.token_of_frame[end]
        assert len(before.tokens) <= whole.token_of_frame[end] <= len(whole.tokens) - len(after.tokens) + 1
    batch = Batcher(corpus, tokenizer).draw_chains(3, 600, 300, 0.1)
    assert batch.text.shape[0] == 2
    assert 100 < batch.text.shape[1] < 360


def test_damage_touches_what_is_read_and_never_what_is_said(corpus: Corpus, tokenizer: Tokenizer) -> None:
    batcher = Batcher(corpus, tokenizer)
    clean, damaged = (batcher.draw(3, 500, 100, share, 0.0) for share in (0.0, 0.3))
    assert torch.equal(clean.label, damaged.label)
    assert torch.equal(clean.said, damaged.said)
    changed = (clean.codec != damaged.codec)[clean.codes[..., 0] >= 0].float().mean()
    assert 0.2 < changed < 0.4
    assert torch.equal(clean.codec[clean.codes[..., 0] == NOTHING], damaged.codec[clean.codes[..., 0] == NOTHING])


def test_the_guide_rewards_attention_on_the_token_spoken() -> None:
    target = torch.tensor([[NOTHING, NOTHING, NOTHING, 0, 1]])

    def look(here: int, there: int) -> torch.Tensor:
        scores = torch.zeros(1, 2, 5, 5)
        scores[:, 0, :, here], scores[:, 1, :, there] = 9, 9
        return scores.log_softmax(-1)

    assert train_talker.guide_loss([look(1, 2)], target) < 0.01 < 1 < train_talker.guide_loss([look(3, 4)], target)


def test_training_continues_where_it_stopped(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    through, parted = tmp_path / "through", tmp_path / "parted"
    through.mkdir()
    parted.mkdir()
    train_talker.train(through, corpus, tokenizer, PLAN)
    train_talker.train(parted, corpus, tokenizer, replace(PLAN, seconds=0.0))
    states = [torch.load(d / "talker.pt", weights_only=True) for d in (through, parted)]
    assert [state["step"] for state in states] == [3, 1]
    train_talker.train(parted, corpus, tokenizer, PLAN)
    resumed = torch.load(parted / "talker.pt", weights_only=True)
    assert resumed["step"] == 3
    for name, tensor in states[0]["net"].items():
        assert torch.allclose(tensor, resumed["net"][name], atol=1e-3), name


def test_the_decoder_learns_from_sound(tmp_path: Path) -> None:
    samples = (8000 * np.sin(np.arange(40 * FRAME_SAMPLES) / 20)).astype(np.int16)
    codes = np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(40, USED_CODEBOOKS)).astype(np.uint16)
    bank = SoundBank(samples, codes, np.array([0, 20, 40]), np.array([1, 1], np.uint8))
    plan = train_codec.CodecPlan(steps=2, batch=1, frames=6)
    train_codec.train(tmp_path, bank, torch.randn(CODEBOOK_COUNT, CODEBOOK_SIZE, ENTRY_WIDTH), plan)
    assert torch.load(tmp_path / "codec.pt", weights_only=True)["step"] == 2


def test_the_decoder_is_asked_for_the_bands_that_the_codes_tell() -> None:
    samples = (0.3 * np.sin(np.arange(8 * FRAME_SAMPLES) / 9) * np.linspace(0, 1, 8 * FRAME_SAMPLES)).astype(np.float32)
    found = train_codec.log_bands(torch.from_numpy(samples)[None])[0]
    expected = log_mel(samples).reshape(-1, 40) / 2
    assert np.abs(found.numpy() - expected).max() < 1e-3


def test_the_snake_bends_as_written_and_so_do_its_gradients() -> None:
    snake, chance = Snake(3).double(), torch.Generator().manual_seed(4)
    x = torch.randn(2, 3, 7, dtype=torch.float64, generator=chance, requires_grad=True)
    with torch.no_grad():
        snake.alpha.normal_(generator=chance)
        snake.beta.normal_(generator=chance)
    plain = x + (x * snake.alpha.exp()[:, None]).sin() ** 2 / (snake.beta.exp()[:, None] + 1e-9)
    assert torch.allclose(snake(x), plain)
    found, expected = (torch.autograd.grad(y.pow(3).sum(), [x, snake.alpha, snake.beta]) for y in (snake(x), plain))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs)


def test_orthogonal_updates_have_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_the_learning_rate_follows_steps_or_time_whichever_is_further() -> None:
    by_step = Clock(steps=100, budget_s=1e9, run_s=1e9, warmup_steps=10, step=75)
    by_time = Clock(steps=10**9, budget_s=1e6, run_s=1e9, warmup_steps=10, step=75, spent_s=750_000)
    assert by_step.rate() == pytest.approx(0.5)
    assert by_time.rate() == pytest.approx(0.5, abs=1e-3)
    assert Clock(100, 1e9, 1e9, 10, step=4).rate() == pytest.approx(0.5)
    assert Clock(100, 1e9, 1e9, 10, step=99).rate() == pytest.approx(0.05)


def test_a_training_that_goes_on_from_a_voice_warms_its_rate_again() -> None:
    assert Clock(1100, 1e9, 1e9, 10, step=1004, origin=1000).rate() == pytest.approx(0.5)
    assert Clock(1100, 1e9, 1e9, 10, step=1040, origin=1000).rate() == 1
    assert Clock(1100, 1e9, 1e9, 10, step=1075, origin=1000).rate() == pytest.approx(0.5)
    assert not Clock(1100, 1e9, 1e9, 10, step=1100, origin=1000).running


def test_a_run_ends_with_its_time_and_the_training_with_its_budget() -> None:
    assert Clock(100, 1e9, 1e9, 10, step=99).running
    assert not Clock(100, 1e9, 1e9, 10, step=100).running
    assert not Clock(100, 50.0, 1e9, 10, step=5, spent_s=51.0).running
    run = Clock(100, 1e9, 0.0, 10, step=5)
    assert run.running
    run.step += 1
    assert not run.running
