"""Added voices, written out: the codec must hear the reference frames too, so the gateway looks them up itself."""

from __future__ import annotations

from itertools import chain

from voicemesh.gateway.v1 import gateway_pb2

from common.voice_store import VoiceStore


def written_out(start: gateway_pb2.SynthesizeStart, store: VoiceStore) -> gateway_pb2.SynthesizeStart:
    """The same with the vector, codes and text of an added voice in place of its name or id; otherwise as it is.

    A name that nobody added is left to tts_lm, whose model may know it.
    """
    voice = start.speech.voice
    wanted = voice.name or voice.clone.voice_id
    added = store.find(wanted) if wanted else None
    if added is None:
        return start
    written = gateway_pb2.SynthesizeStart()
    written.CopyFrom(start)
    clone = written.speech.voice.clone
    clone.Clear()
    clone.speaker_vector.extend(added.speaker_vector)
    clone.codes.extend(chain.from_iterable(added.codes))
    clone.reference_text = added.reference_text
    return written
