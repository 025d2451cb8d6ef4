"""Stage 4: talker and code predictor learn text → codes. Resumable at any time; the same code on CPU and GPU.

Beside what it must say, training tells it what the synthesiser knows: which token is being spoken (two heads in two
layers are asked to look there) and which phonemes (read from a middle layer). Short utterances come first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tools.mini_voice.batches import Batch, Batcher
from tools.mini_voice.clock import Clock, resume, save
from tools.mini_voice.corpus import Corpus
from tools.mini_voice.dimensions import model_and_codec_config
from tools.mini_voice.muon import Muon
from tools.mini_voice.talker_net import MiniTalker


@dataclass(frozen=True)
class TalkerPlan:
    """`seconds` bounds this run, `steps` and `budget_s` the whole training; `rows` is the batch, padding included."""

    steps: int = 6000
    budget_s: float = 1e9
    seconds: float = 1e9
    rows: int = 3000
    matrix_rate: float = 3e-3
    other_rate: float = 3e-3
    warmup_steps: int = 60
    short_steps: int = 1500
    first_limit: int = 34
    last_limit: int = 500
    damage: float = 0.1
    whole_share: float = 0.25
    chain_share: float = 0.12
    chain_frames: tuple[int, int] = (500, 1000)
    residual_share: float = 0.3
    guide_weight: float = 0.3
    phone_weight: float = 0.3
    save_every_s: float = 120.0
    device: str = "cpu"
    bfloat16: bool = True
    workers: int = 0

    def frame_limit(self, step: int) -> int:
        """Short utterances first: the longest that may be drawn at `step`."""
        grown = min(1.0, step / self.short_steps) ** 2
        return round(self.first_limit + (self.last_limit - self.first_limit) * grown)

    def chain(self, step: int) -> int:
        """Frames of the chains of a step that learns from chains, else 0; they come when the short ones are known."""
        chance = random.Random(step)
        if step < self.short_steps or chance.random() >= self.chain_share:
            return 0
        return chance.randint(*self.chain_frames)


class Draws(IterableDataset[Batch]):
    """The batches of steps `first`, `first` + 1, …, shared out among the loader's workers in turn."""

    def __init__(self, batcher: Batcher, plan: TalkerPlan, first: int) -> None:
        self._batcher, self._plan, self._first = batcher, plan, first

    def __iter__(self) -> Iterator[Batch]:
        worker, plan = get_worker_info(), self._plan
        skip, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self._first + skip, plan.steps, stride):
            if plan.chain(step):
                yield self._batcher.draw_chains(step, plan.rows, plan.chain(step), plan.damage)
            else:
                yield self._batcher.draw(step, plan.rows, plan.frame_limit(step), plan.damage, plan.whole_share)


def train(work: Path, corpus: Corpus, tokenizer: Tokenizer, plan: TalkerPlan) -> None:
    """Continue from work/talker.pt, or begin."""
    path = work / "talker.pt"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    net = build(len(corpus.phone_names)).to(plan.device)
    optimisers = _optimisers(net, plan)
    done = resume(path, net, optimisers, plan.device)
    batcher = Batcher(corpus, tokenizer)
    count = sum(p.numel() for p in net.parameters())
    print(f"talker: {count} parameters, {batcher.tokens_per_second:.2f} tokens/s", flush=True)
    clock = Clock(plan.steps, plan.budget_s, plan.seconds, plan.warmup_steps, done.step, done.spent_s, done.origin)
    batches = iter(DataLoader(Draws(batcher, plan, done.step), batch_size=None, num_workers=plan.workers))
    saved_s = 0.0
    while clock.running:
        for optimiser, rate in zip(optimisers, (plan.matrix_rate, plan.other_rate), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * clock.rate()
        losses = _step(net, optimisers, next(batches).to(plan.device), plan)
        clock.step += 1
        if clock.step % 50 == 0:
            line = " ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"talker step {clock.step} {line} s/step {clock.pace_s:.3f}", flush=True)
        if clock.elapsed_s - saved_s > plan.save_every_s:
            save(path, net, optimisers, clock)
            saved_s = clock.elapsed_s
    save(path, net, optimisers, clock)


def _step(
    net: MiniTalker, optimisers: list[torch.optim.Optimizer], batch: Batch, plan: TalkerPlan
) -> dict[str, Tensor]:
    with torch.autocast(plan.device, torch.bfloat16, enabled=plan.bfloat16):
        losses = losses_of(net, batch, plan)
    weighted(losses, plan).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return losses


def build(phone_count: int) -> MiniTalker:
    """A fresh talker at mini's dimensions."""
    model, _ = model_and_codec_config()
    return MiniTalker(model, phone_count)


def losses_of(net: MiniTalker, batch: Batch, plan: TalkerPlan) -> dict[str, Tensor]:
    """Cross entropies in nats: code 0 with the end of speech, residual codes on some frames, and the hints."""
    heard = net(net.rows(batch.text, batch.codec, batch.codes), guided=True)
    speaking = batch.label >= 0
    code0 = F.cross_entropy(net.talker.codec_head(heard.hidden[speaking]).float(), batch.label[speaking])
    framed = batch.said[..., 0] >= 0
    phones = net.phone_reader(heard.middle[framed]).float().unflatten(-1, (2, -1)).transpose(1, 2)
    hidden, said = heard.hidden[framed], batch.said[framed]
    chosen = torch.rand(len(said), device=said.device) < plan.residual_share
    logits = net.residual_logits(hidden[chosen], said[chosen])
    by_book = [F.cross_entropy(rows.float(), said[chosen, book + 1]) for book, rows in enumerate(logits)]
    return {
        "code0": code0,
        "residual": torch.stack(by_book).mean(),
        "guide": guide_loss(heard.looks, batch.target),
        "phone": F.cross_entropy(phones, batch.phones[framed]),
        "pitch": by_book[0].detach(),
        "envelope": by_book[1].detach(),
        "last": by_book[-1].detach(),
    }


def weighted(losses: dict[str, Tensor], plan: TalkerPlan) -> Tensor:
    """What is minimised."""
    hints = plan.guide_weight * losses["guide"] + plan.phone_weight * losses["phone"]
    return losses["code0"] + losses["residual"] + hints


def guide_loss(looks: list[Tensor], target: Tensor) -> Tensor:
    """How little attention falls on the token spoken and its neighbours (first head) or on the next two (second)."""
    rows = (target >= 0).nonzero()
    here = target[rows[:, 0], rows[:, 1]]
    total = target.new_zeros((), dtype=torch.float32)
    for look in looks:
        for head, (low, high) in enumerate(((-1, 1), (1, 2))):
            logs = look[rows[:, 0], head, rows[:, 1]].float()
            places = here[:, None] + torch.arange(low, high + 1, device=target.device)
            inside = (places >= 0) & (places <= rows[:, 1:2])
            mass = logs.gather(1, places.clamp(0, look.shape[-1] - 1)).masked_fill(~inside, -30.0).logsumexp(1)
            kept = inside.any(1)
            total = total - mass[kept].clamp(min=-20.0).mean()
    return total / (2 * len(looks))


def _optimisers(net: MiniTalker, plan: TalkerPlan) -> list[torch.optim.Optimizer]:
    hidden = [p for n, p in net.named_parameters() if p.dim() == 2 and ".layers." in n]
    ids = {id(p) for p in hidden}
    others = [p for p in net.parameters() if id(p) not in ids]
    adam = torch.optim.AdamW(others, plan.other_rate, betas=(0.9, 0.95), weight_decay=0.01)
    return [Muon(hidden, plan.matrix_rate), adam]
