"""Stage 3: the decoder learns codes → sound. Resumable at any time; the same code on CPU and GPU, in float32.

Multi-resolution spectral loss (log magnitude and spectral convergence). Later codebooks are dropped at random, so that
one decoder serves however many of them the talker gets right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.mini_voice import features
from tools.mini_voice.clock import Clock, resume, save
from tools.mini_voice.codec_net import CodecDecoder
from tools.mini_voice.dimensions import USED_CODEBOOKS, model_and_codec_config
from tools.mini_voice.sound import SoundBank

FRAME_SAMPLES = 1920
_WINDOWS = (256, 512, 1024, 2048)
_LAST_BOOK_DROP = 0.3


@dataclass(frozen=True)
class CodecPlan:
    """How long and in what bites; `seconds` bounds this run, `steps` and `budget_s` the whole training."""

    steps: int = 20000
    budget_s: float = 1e9
    seconds: float = 1e9
    warmup_steps: int = 100
    batch: int = 6
    frames: int = 14
    learning_rate: float = 1e-3
    voice_shares: tuple[float, ...] = (0.4, 0.6)
    """Of the bites, how many are of each voice: mina's are the harder ones."""
    save_every_s: float = 120.0
    device: str = "cpu"


def train(work: Path, bank: SoundBank, entries: Tensor, plan: CodecPlan) -> None:
    """Continue from work/codec.pt, or begin; `entries` [16, 512, D] as the decoder sees them."""
    path = work / "codec.pt"
    net = build().to(plan.device)
    optimiser = torch.optim.AdamW(net.parameters(), plan.learning_rate, betas=(0.8, 0.99), weight_decay=0.01)
    done = resume(path, net, [optimiser], plan.device)
    clock = Clock(plan.steps, plan.budget_s, plan.seconds, plan.warmup_steps, done.step, done.spent_s, done.origin)
    codes = torch.from_numpy(bank.codes.astype(np.int64)).to(plan.device)
    sound = torch.from_numpy(bank.samples).view(-1, FRAME_SAMPLES).to(plan.device)
    entries = entries.to(plan.device)
    starts = [_starts(bank, voice, plan.frames) for voice in range(len(plan.voice_shares))]
    shares = torch.tensor([share if len(s) else 0.0 for share, s in zip(plan.voice_shares, starts, strict=True)])
    saved_s, recent = 0.0, 0.0
    while clock.running:
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * clock.rate()
        torch.manual_seed(clock.step)
        voices = torch.multinomial(shares, plan.batch, replacement=True).tolist()
        firsts = torch.stack([starts[voice][torch.randint(len(starts[voice]), ())] for voice in voices])
        rows = (firsts[:, None] + torch.arange(plan.frames)).to(plan.device)
        target = sound[rows].flatten(1).to(torch.float32) / 32768
        loss = spectral_loss(net(latent(codes[rows], entries, dropped=True)), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        clock.step += 1
        if clock.step % 10 == 0:
            recent = loss.item() if recent == 0.0 else 0.8 * recent + 0.2 * loss.item()
        if clock.step % 50 == 0:
            print(f"codec step {clock.step} loss {recent:.4f} s/step {clock.pace_s:.3f}", flush=True)
        if clock.elapsed_s - saved_s > plan.save_every_s:
            save(path, net, [optimiser], clock)
            saved_s = clock.elapsed_s
    save(path, net, [optimiser], clock)


def build() -> CodecDecoder:
    """A fresh decoder at mini's dimensions."""
    _, config = model_and_codec_config()
    return CodecDecoder(config["decoder_config"])


def latent(codes: Tensor, entries: Tensor, *, dropped: bool = False) -> Tensor:
    """codes [B, T, 16] → z [B, codebook_dim, T]; `dropped` leaves out the last books of some rows.

    The two branches of the layout share one projection, [identity; zeros], so the second half of z is empty.
    """
    books = torch.stack([entries[book, codes[..., book]] for book in range(USED_CODEBOOKS)])  # [K, B, T, D]
    if dropped:
        rows, device = codes.shape[0], codes.device
        fewer = torch.randint(2, USED_CODEBOOKS, (rows,), device=device)
        kept = torch.where(torch.rand(rows, device=device) < _LAST_BOOK_DROP, fewer, USED_CODEBOOKS)
        mask = torch.arange(USED_CODEBOOKS, device=device)[:, None] < kept
        books = books * mask[:, :, None, None].to(books)
    z = books.sum(0)
    return F.pad(z, (0, z.shape[-1])).transpose(1, 2)


def spectral_loss(made: Tensor, target: Tensor) -> Tensor:
    """Mean over four window lengths of spectral convergence and log-magnitude distance, and the distance of the bands.

    The bands are those that the codes tell: what can be known is asked for where it is known.
    """
    total = made.new_zeros(())
    for size in _WINDOWS:
        a, b = _magnitude(made, size), _magnitude(target, size)
        total = total + (b - a).norm() / b.norm().clamp(min=1e-3) + (_log(b) - _log(a)).abs().mean()
    return total / len(_WINDOWS) + (log_bands(made) - log_bands(target)).abs().mean()


def log_bands(samples: Tensor) -> Tensor:
    """Natural log amplitude [B, hops, 40] as `features.log_mel` sees it: [B, N] → differentiable."""
    window, before = features.hann(features.WINDOW), (features.WINDOW - features.HOP_SAMPLES) // 2
    padded = F.pad(samples, (before, features.WINDOW - features.HOP_SAMPLES - before))
    windows = padded.unfold(-1, features.WINDOW, features.HOP_SAMPLES) * torch.from_numpy(window).to(samples)
    spectrum = torch.fft.rfft(windows, features.FFT)
    power = (spectrum.real.square() + spectrum.imag.square()) / features.WINDOW
    bands = power @ torch.from_numpy(features.mel_matrix()).to(samples)
    logs: Tensor = bands.clamp(min=features.FLOOR).log()
    return logs / 2


def _starts(bank: SoundBank, voice: int, frames: int) -> Tensor:
    """Every frame that begins a bite inside one utterance of the voice."""
    bounds = zip(bank.offsets[:-1].tolist(), bank.offsets[1:].tolist(), bank.voices.tolist(), strict=True)
    found = [torch.arange(a, b - frames + 1) for a, b, of in bounds if of == voice and b - a >= frames]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def _magnitude(x: Tensor, size: int) -> Tensor:
    window = torch.hann_window(size, device=x.device)
    spectrum = torch.stft(x, size, size // 4, window=window, return_complex=True, normalized=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()


def _log(x: Tensor) -> Tensor:
    return x.clamp(min=1e-4).log()
