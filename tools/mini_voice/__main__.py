"""Makes the mini voice: `python -m tools.mini_voice --work DIR`. Every stage is skipped when done and resumed when not.

speech     sentences, spoken by the synthesiser, as features        (needs espeak-ng, pocketsphinx, soxr)
books      codebooks from features, without gradients
corpus     what a training machine needs: corpus.lzma, sound.lzma, codebooks.npz, vocabulary/   (about 45 MB)
codec      the decoder learns codes → sound                         (torch, numpy, tokenizers, safetensors alone)
talker     talker and code predictor learn text → codes             (the same)
export     a checkpoint in the official layout in DIR/mini
evaluate   recogniser scores and the model card                   (needs espeak-ng, pocketsphinx, soxr)
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tools.mini_voice import card, evaluate, export, speech_data, train_codec, train_talker, vocabulary
from tools.mini_voice import corpus as corpora
from tools.mini_voice.codebooks import Codebooks, fit
from tools.mini_voice.corpus import Corpus
from tools.mini_voice.sound import SoundBank
from tools.mini_voice.take_up import take_up
from tools.mini_voice.timing import FRAME_S

STAGES = ("speech", "books", "corpus", "codec", "talker", "export", "evaluate")
_HOURS_PER_SHARD = 0.85
_BOOK_SHARDS = 4
_NETWORKS = ("codec", "talker")


@dataclass(frozen=True)
class Job:
    """One run of the pipeline: where, how much, for how long and on what."""

    work: Path
    shards: int
    sound_minutes: int
    codec: train_codec.CodecPlan
    talker: train_talker.TalkerPlan
    sentences: int

    @property
    def sounding_shards(self) -> int:
        """How many of the first shards keep their sound."""
        return max(1, -(-self.sound_minutes // round(_HOURS_PER_SHARD * 60)))

    def speech(self) -> list[Path]:
        return speech_data.make_shards(self.work / "speech", self.shards, self.sounding_shards, _processes())

    def books(self) -> Codebooks:
        path = self.work / "codebooks.npz"
        if not path.exists():
            shards = [speech_data.read_shard(path) for path in self.speech()[:_BOOK_SHARDS]]
            fit(*_fitting_data(shards)).save(path)
        return Codebooks.load(path)

    def corpus(self) -> Corpus:
        path, words = self.work / "corpus.lzma", self.work / "vocabulary"
        if not path.exists():
            paths = self.speech()
            self.books()
            corpora.encode(paths, self.work / "codebooks.npz", _processes()).save(path)
        found = Corpus.load(path)
        if not (words / "merges.txt").exists():
            words.mkdir(exist_ok=True)
            vocabulary.save(vocabulary.train(found.texts), words)
        return found

    def sound(self) -> SoundBank:
        path = self.work / "sound.lzma"
        if not path.exists():
            sounding = self.speech()[: self.sounding_shards]
            shards = [speech_data.read_shard(path) for path in sounding]
            _bank(shards, self.books()).first(self.sound_minutes * 750).save(path)
        return SoundBank.load(path)

    def run(self, stage: str) -> None:
        print(f"stage {stage}", flush=True)
        match stage:
            case "speech":
                self.speech()
            case "books":
                self.books()
            case "corpus":
                self.corpus(), self.sound()
            case "codec":
                train_codec.train(self.work, self.sound(), self.books().scaled_entries(), self.codec)
            case "talker":
                found = self.corpus()
                train_talker.train(self.work, found, vocabulary.load(self.work / "vocabulary"), self.talker)
            case "export":
                codec, talker = (_trained(self.work / f"{name}.pt") for name in _NETWORKS)
                words = vocabulary.load(self.work / "vocabulary")
                export.export(self.work / "mini", talker, codec, self.books(), words)
            case _:
                self._evaluate()

    def _evaluate(self) -> None:
        torch.set_num_threads(1)
        scores = evaluate.evaluate(
            self.work / "mini",
            self.books(),
            count=self.sentences,
            layouts=("streaming", "whole"),
            out=self.work / "listen",
        )
        for score in scores:
            print(score, flush=True)
        codec, talker = (torch.load(self.work / f"{n}.pt", map_location="cpu", weights_only=True) for n in _NETWORKS)
        text = card.card(
            scores,
            hours=len(self.corpus().codes) * FRAME_S / 3600,
            codec_steps=codec["step"],
            talker_steps=talker["step"],
            talker_parameters=sum(p.numel() for name, p in talker["net"].items() if name.startswith("talker.")),
            codec_parameters=sum(p.numel() for p in codec["net"].values()),
        )
        (self.work / "mini" / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    arguments = _parser().parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    cuda = arguments.device.startswith("cuda")
    codec = train_codec.CodecPlan(
        steps=arguments.codec_steps,
        budget_s=arguments.budget,
        seconds=arguments.seconds,
        batch=32 if cuda else 6,
        device=arguments.device,
    )
    talker = train_talker.TalkerPlan(
        steps=arguments.talker_steps,
        budget_s=arguments.budget,
        seconds=arguments.seconds,
        rows=32000 if cuda else 2000,
        device=arguments.device,
        workers=12 if cuda else 0,
    )
    job = Job(
        arguments.work,
        shards=max(_BOOK_SHARDS, round(arguments.hours / _HOURS_PER_SHARD)),
        sound_minutes=arguments.sound_minutes,
        codec=codec,
        talker=talker,
        sentences=arguments.sentences,
    )
    if arguments.voice:
        take_up(arguments.voice, job.work)
    for stage in arguments.stage or STAGES:
        job.run(stage)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools.mini_voice", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept between runs")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this stage; may be given again")
    parser.add_argument("--from", type=Path, dest="voice", metavar="VOICE", help="go on from this finished voice")
    parser.add_argument("--hours", type=float, default=60, help="hours of speech (default 60)")
    parser.add_argument("--sound-minutes", type=int, default=25, help="minutes of it that the codec learns from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="stop each training stage after so long, to be resumed"
    )
    parser.add_argument("--budget", type=float, default=1e9, help="seconds of each training in all, over all runs")
    parser.add_argument("--codec-steps", type=int, default=20000)
    parser.add_argument("--talker-steps", type=int, default=20000)
    parser.add_argument("--sentences", type=int, default=100, help="held-out sentences of the evaluation")
    return parser


def _fitting_data(shards: list[speech_data.Shard]) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    mel = torch.from_numpy(np.concatenate([shard.mel for shard in shards])).float()
    pitch = [
        torch.from_numpy(shard.pitch[a:b]).float()
        for shard in shards
        for a, b in zip(shard.offsets[:-1].tolist(), shard.offsets[1:].tolist(), strict=True)
    ]
    names = sorted({name for shard in shards for name in shard.phone_names})
    which = torch.cat(
        [torch.tensor([names.index(n) for n in s.phone_names])[s.phones.astype(np.int64)] for s in shards]
    )
    shares = torch.zeros(len(which), len(names)).scatter_add_(1, which, torch.full(which.shape, 1 / which.shape[1]))
    return mel, pitch, shares


def _bank(shards: list[speech_data.Shard], books: Codebooks) -> SoundBank:
    starts = np.cumsum([0, *(len(shard.chars) for shard in shards)])
    offsets = [shard.offsets[:-1] + start for shard, start in zip(shards, starts, strict=False)]
    return SoundBank(
        samples=np.concatenate([shard.samples for shard in shards if shard.samples is not None]),
        codes=np.concatenate([corpora.shard_codes(shard, books) for shard in shards]).astype(np.uint16),
        offsets=np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
        voices=np.concatenate([shard.voices for shard in shards]).astype(np.uint8),
    )


def _processes() -> int:
    return max(1, (os.cpu_count() or 2) - 1)


def _trained(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, dict[str, torch.Tensor]] = torch.load(path, map_location="cpu", weights_only=True)
    return state["net"]


if __name__ == "__main__":
    main()
