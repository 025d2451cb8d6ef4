"""Run the reference codec (qwen-tts 0.1.1) on random checkpoints and store what it answers.

`REFENV/bin/python -m tools.reference.codec` (the environment comes from `tools.reference.build`) remakes
`tests/reference/codec/*.npz` with their provenance. Decoded undivided, past the package's windowing, so that nothing
but the model is compared; float64 is the reference code as it is under `.double()` (its norms and rotations stay
float32).
Also `--serve`: the reference as a worker for `bench/codec.py`. Imports nothing of services.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qwen_tts.core.models.configuration_qwen3_tts import Qwen3TTSSpeakerEncoderConfig
from qwen_tts.core.models.modeling_qwen3_tts import Qwen3TTSSpeakerEncoder, mel_spectrogram
from qwen_tts.core.tokenizer_12hz.modeling_qwen3_tts_tokenizer_v2 import Qwen3TTSTokenizerV2Model
from safetensors.torch import load_file

from cli.checkpoint import official
from cli.checkpoint.random import write_random

STORE = Path(__file__).parents[2] / "tests" / "reference" / "codec"
REAL_DECIMATION = 37
"""Every 37th sample is stored at real dimensions: coprime with every rate of the decoder, so all phases are seen."""
LENGTHS = (11 * 24_000, 40_123, 5 * 1920, 1500)
"""Reference audio in samples: past the unused 10 s window of the encoder, ragged, whole frames, under one frame."""
SPEAKER_LENGTHS = (40_123, 5 * 1920)
MEL = {
    "n_fft": 1024,
    "num_mels": 128,
    "sampling_rate": 24_000,
    "hop_size": 256,
    "win_size": 1024,
    "fmin": 0,
    "fmax": 12_000,
}


def real_arguments() -> dict[str, Any]:
    """A codec and a speaker encoder of real dimensions beside a tiny talker, which nobody runs here."""
    codec_config = official.codec_config("0.6B")
    widths = {"enc_channels": [512, 512, 512, 512, 1536], "enc_attention_channels": 128, "enc_se_channels": 128}
    sections = {name: codec_config[name] for name in ("decoder_config", "encoder_config")}
    return {
        "like": "tiny",
        "type": "base",
        "seed": 0,
        "codebook_size": sections["decoder_config"]["codebook_size"],
        **sections,
        "speaker_encoder_config": widths,
    }


def reference_audio() -> np.ndarray:
    """11 s of a gliding, breathing, noisy voice as int16; stored, so it need not come out alike everywhere."""
    t = np.arange(LENGTHS[0]) / 24_000
    rng = np.random.default_rng(5)
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * t)) / 24_000
    voice = sum(np.sin(k * pitch + k) / k for k in range(1, 20))
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * 2.3 * t) ** 2
    audio = 0.25 * loud * voice + 0.02 * rng.standard_normal(t.size)
    return np.round(32767 * np.clip(audio, -1, 1)).astype(np.int16)


def codec(directory: Path) -> Any:
    return Qwen3TTSTokenizerV2Model.from_pretrained(directory / "speech_tokenizer").eval()


def speaker_encoder(directory: Path) -> Qwen3TTSSpeakerEncoder:
    section = json.loads((directory / "config.json").read_text())["speaker_encoder_config"]
    model = Qwen3TTSSpeakerEncoder(Qwen3TTSSpeakerEncoderConfig(**section))
    prefix = "speaker_encoder."
    tensors = load_file(directory / "model.safetensors")
    model.load_state_dict({n[len(prefix) :]: t.float() for n, t in tensors.items() if n.startswith(prefix)})
    return model.eval()


@torch.inference_mode()
def references(directory: Path, frames: int, every: int) -> dict[str, np.ndarray]:
    """Everything stored of one checkpoint."""
    model, speaker = codec(directory), speaker_encoder(directory)
    size = model.config.decoder_config.codebook_size
    codes = torch.randint(0, size, (1, frames, 16), generator=torch.Generator().manual_seed(1))
    audio = reference_audio()
    out: dict[str, np.ndarray] = {"codes": codes[0].numpy().astype(np.int16), "audio": audio}
    out["samples_float32"] = model.decoder(codes.transpose(1, 2))[0, 0, ::every].numpy()
    waves = torch.from_numpy(audio.astype(np.float32) / 32768)
    for length in LENGTHS:
        encoded = model.encode(waves[None, :length], torch.ones(1, length, dtype=torch.int64), return_dict=True)
        out[f"encoded_{length}"] = encoded.audio_codes[0].numpy().astype(np.int16)
    for length in SPEAKER_LENGTHS:
        mel = mel_spectrogram(waves[None, :length], **MEL).transpose(1, 2)
        out[f"speaker_{length}"] = speaker(mel)[0].numpy()
    out["samples_float64"] = model.double().decoder(codes.transpose(1, 2))[0, 0, ::every].numpy()
    return out


def store(name: str, arguments: dict[str, Any], frames: int, every: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write_random(directory, **arguments)
        arrays = references(Path(directory), frames, every)
        tensors = (Path(directory) / "speech_tokenizer" / "model.safetensors").read_bytes()
    if name != "tiny":
        del arrays["audio"]  # the same as in tiny
    np.savez_compressed(STORE / f"{name}.npz", **arrays)
    provenance = {
        "reference": "qwen-tts 0.1.1, transformers 4.57.3, eager modules on the CPU",
        "torch": torch.__version__,
        "checkpoint": {"write_random": arguments, "speech_tokenizer_sha256": sha256(tensors).hexdigest()},
        "codes_seed": 1,
        "every_nth_sample": every,
        "float32_against_float64": float(np.abs(arrays["samples_float32"] - arrays["samples_float64"]).max()),
        "remade_by": "REFENV/bin/python -m tools.reference.codec",
    }
    (STORE / f"{name}.json").write_text(json.dumps(provenance, indent=2) + "\n")
    print(name, provenance["float32_against_float64"], {k: v.shape for k, v in arrays.items()}, flush=True)


def serve(directory: Path) -> None:
    """One JSON command per line in, one answer out: {"dtype", "codes" [T][Q], "drop"} → {"seconds"}.

    What the reference's way of streaming does for one packet: decode context and new frames from nothing, cut the
    context.
    """
    models: dict[str, Any] = {}
    for line in sys.stdin:
        command = json.loads(line)
        dtype = command["dtype"]
        if dtype not in models:
            models[dtype] = codec(directory).to(getattr(torch, dtype)).decoder
        codes = torch.tensor(command["codes"]).T.unsqueeze(0)
        with torch.inference_mode():
            start = time.perf_counter()
            samples = models[dtype](codes)[..., command["drop"] * models[dtype].total_upsample :]
            seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "samples": samples.shape[-1]}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", type=Path, metavar="CHECKPOINT", help="answer timing commands on stdin")
    parser.add_argument("--only", choices=("tiny", "real"), help="remake one of the two")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return 0
    STORE.mkdir(parents=True, exist_ok=True)
    if arguments.only != "real":
        store("tiny", {"like": "tiny", "type": "base", "seed": 0}, frames=24, every=1)
    if arguments.only != "tiny":
        store("real", real_arguments(), frames=80, every=REAL_DECIMATION)
    return 0


if __name__ == "__main__":
    sys.exit(main())
