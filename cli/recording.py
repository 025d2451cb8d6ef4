"""A recording as the codec hears it: read, sent to `CodecService.Encode`, answered with codes and speaker vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.addresses import Target
from cli.errors import CommandError

if TYPE_CHECKING:
    from voicemesh.codec.v1 import codec_pb2
    from voicemesh.stream.v1 import stream_pb2

_PIECE_BYTES = 1 << 20
_ENCODE_TIMEOUT_S = 120.0


async def encode(path: str, codec: Target) -> codec_pb2.EncodeResponse:
    """CommandError says why the recording cannot be read, or what the codec finds wrong with it."""
    from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc

    from cli.clients import connected, stub, unary

    audio_format, samples = _read(path)
    requests = [
        codec_pb2.EncodeRequest(
            format=audio_format if begin == 0 else None, payload=samples[begin : begin + _PIECE_BYTES]
        )
        for begin in range(0, len(samples), _PIECE_BYTES)
    ]
    async with connected(codec) as channel:
        call = stub(codec_pb2_grpc.CodecServiceStub, channel).Encode(iter(requests))
        encoded: codec_pb2.EncodeResponse = await unary(call, _ENCODE_TIMEOUT_S)
        return encoded


def _read(path: str) -> tuple[stream_pb2.AudioFormat, bytes]:
    import soundfile
    from voicemesh.stream.v1 import stream_pb2

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise CommandError(f"the recording {path} cannot be read: {error}") from error
    if not len(samples):
        raise CommandError(f"the recording {path} is empty")
    audio_format = stream_pb2.AudioFormat(
        encoding=stream_pb2.AUDIO_ENCODING_PCM_F32LE, sample_rate_hz=rate, channel_count=samples.shape[1]
    )
    return audio_format, samples.astype("<f4").tobytes()
