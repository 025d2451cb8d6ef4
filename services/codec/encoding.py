"""Reference audio → what the model knows of a voice: read, checked, encoded off the loop, remembered by content.

One encoding at a time on its own thread; a few may wait, more are refused. Imports torch.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import torch

from common.errors import Overloaded
from services.codec.model.config import CodecConfig
from services.codec.model.encoder import Encoder, load_encoder
from services.codec.model.speaker_encoder import SpeakerEncoder, load_speaker_encoder
from services.codec.reference_audio import Limits, read_reference
from services.codec.types import EncodedVoice, EncodeSpec

MAX_WAITING = 4
RETRY_S = 2.0
"""Encoding a minute of audio takes seconds on two cores."""


class VoiceEncoder:
    def __init__(
        self,
        encoder: Encoder,
        speaker_encoder: SpeakerEncoder | None,
        *,
        sample_rate_hz: int,
        limits: Limits,
        max_cached: int,
    ) -> None:
        self._encoder = encoder
        self._speaker_encoder = speaker_encoder
        self._sample_rate_hz = sample_rate_hz
        self._limits = limits
        self._max_cached = max_cached
        self._known: OrderedDict[bytes, EncodedVoice] = OrderedDict()
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="codec-encode")

    async def encode(self, spec: EncodeSpec, payload: bytes) -> EncodedVoice:
        """InvalidRequest for audio that cannot be a reference, Overloaded when too many wait already."""
        if self._waiting > MAX_WAITING:
            raise Overloaded("Too many references wait to be encoded.", retry_after_s=RETRY_S)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, spec, payload)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _encode(self, spec: EncodeSpec, payload: bytes) -> EncodedVoice:
        key = content_key(spec, payload)
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        wave = torch.from_numpy(read_reference(spec, payload, self._limits, self._sample_rate_hz))
        codes = tuple(tuple(frame) for frame in self._encoder(wave).tolist())
        vector = None if self._speaker_encoder is None else tuple(self._speaker_encoder(wave).tolist())
        voice = EncodedVoice(codes, vector)
        self._known[key] = voice
        while len(self._known) > self._max_cached:
            self._known.popitem(last=False)
        return voice


def content_key(spec: EncodeSpec, payload: bytes) -> bytes:
    """What decides the answer: the bytes, and how they are to be read."""
    form = f"{int(spec.encoding)} {spec.sample_rate_hz} {spec.channel_count} ".encode()
    return sha256(form + payload).digest()


def load_voice_encoder(config: CodecConfig, *, limits: Limits, max_cached: int) -> VoiceEncoder | None:
    """None for a checkpoint without an encoder."""
    encoder = load_encoder(config)
    if encoder is None:
        return None
    return VoiceEncoder(
        encoder,
        load_speaker_encoder(config),
        sample_rate_hz=config.sample_rate_hz,
        limits=limits,
        max_cached=max_cached,
    )
