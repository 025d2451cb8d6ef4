"""What the original silero VAD says about `speech.flac`; `reference.json` holds it, this makes it again.

    espeak-ng -v en-us -s 160 -w speech.wav "Hello there. This is a test of … how are you today?"   (see TEXT)
    python -m tests.gateway.hearing.reference silero_vad_16k_op15.onnx   # from the wheel of silero-vad 6.2.3

`speech.flac`: 0.8 s of faint noise, the sentence, 1.2 s of faint noise; 16 kHz, mono, 16 bit. Made by espeak-ng 1.51.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

TEXT = "Hello there. This is a test of voice activity. How are you today?"
HERE = Path(__file__).parent
WINDOW, CONTEXT = 512, 64


def speech() -> NDArray[np.int16]:
    """The file, mono 16 kHz."""
    samples, rate_hz = soundfile.read(HERE / "speech.flac", dtype="int16")
    assert rate_hz == 16_000
    return np.asarray(samples, np.int16)


def probabilities() -> list[float]:
    """Of each window of it, by the original."""
    document: dict[str, Any] = json.loads((HERE / "reference.json").read_text())
    return [float(value) for value in document["probabilities"]]


def remake(path: str) -> None:
    """Run the original over the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)
    sound, values = speech() / np.float32(32768), []
    for begin in range(0, sound.size - WINDOW + 1, WINDOW):
        window = sound[begin : begin + WINDOW]
        feed = {"input": np.concatenate((context, window))[None], "state": state, "sr": np.array(16_000)}
        output, state = session.run(None, feed)
        context = window[-CONTEXT:]
        values.append(round(float(output[0, 0]), 5))
    document = {"model": "silero-vad 6.2.3, silero_vad_16k_op15.onnx", "runtime": onnxruntime.__version__}
    (HERE / "reference.json").write_text(json.dumps(document | {"probabilities": values}) + "\n")


if __name__ == "__main__":
    remake(sys.argv[1])
