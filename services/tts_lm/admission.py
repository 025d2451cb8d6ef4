"""From a request to a sequence: every check of the contract, every default of the checkpoint. Pure.

What cannot be served is refused here, with a sentence that says what would be accepted, before it costs a slot.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence as Items
from dataclasses import dataclass

from common.errors import InvalidRequest, UnknownName
from common.slots import Lease
from services.tts_lm.model.config import ModelConfig
from services.tts_lm.model.prompt import Frame, Script, Speaker, build_prompt, language_id, offered_languages
from services.tts_lm.model.tokenizer import Tokenizer
from services.tts_lm.prefix import prefix_of
from services.tts_lm.sequence import ResolvedSampling, Sequence, Terms
from services.tts_lm.types import CloneVoice, SamplingParams, UtteranceRequest

MAX_INSTRUCT_CHARACTERS = 4096
MAX_REFERENCE_CHARACTERS = 10_000
MAX_RAMP_LENGTH = 64


@dataclass(frozen=True)
class House:
    """What the engine allows any one utterance."""

    max_positions: int
    unread_frame_limit: int


@dataclass(frozen=True)
class Admitted:
    """A checked request, still without a slot."""

    request: UtteranceRequest
    config: ModelConfig
    house: House
    tokenizer: Tokenizer
    sampling: ResolvedSampling
    speaker: Speaker
    language: int | None
    instruct: tuple[int, ...]
    reference: tuple[int, ...]
    icl: tuple[Frame, ...] | None
    resumed: tuple[Frame, ...]

    def sequence(self, lease: Lease) -> Sequence:
        """The utterance in its slot, before any text."""
        prompt = build_prompt(
            self.config,
            role=self.tokenizer.role(),
            instruct=self.instruct,
            language_id=self.language,
            speaker=self.speaker,
            layout=self.request.layout,
            icl=self.icl,
            resumed=self.resumed,
        )
        script, vector = Script(self.config, self.reference), self.speaker.vector
        prefix = prefix_of(prompt, self.reference, vector)
        return Sequence(lease, prompt, script, self.sampling, vector, self._terms(), prefix)

    def _terms(self) -> Terms:
        request, given = self.request, self.request.max_frames
        # The reference counts the sample that ends speech too: max_new_tokens 8192 gives at most 8191 frames.
        longest = min(self.config.generation.max_new_tokens - 1, self.house.max_positions)
        # The caller counts what is delivered; the model counts what was resumed from too.
        allowed = given + len(self.resumed) if given else longest
        return Terms(
            max_frames=min(allowed, longest),
            max_positions=self.house.max_positions,
            max_lead_frames=request.max_lead_frames or None,
            unread_frame_limit=self.house.unread_frame_limit,
            packet_ramp=request.packet_ramp or (1,),
            text_timeout_s=request.text_timeout_s or None,
            reference_behaviour=request.reference_behaviour,
            end_of_speech=self.config.codec.eos,
            frame_s=1 / self.config.frame_rate_hz,
        )


def admit(request: UtteranceRequest, config: ModelConfig, tokenizer: Tokenizer, house: House) -> Admitted:
    """Check everything; raises `UnknownName` or `InvalidRequest`."""
    _check_numbers(request)
    speaker, name = _speaker(request.voice, config)
    icl, reference = _clone(request.voice, config, tokenizer)
    instruct = request.instruct if config.supports_instruct else ""  # the reference drops it there too
    if len(instruct) > MAX_INSTRUCT_CHARACTERS:
        raise InvalidRequest(f"instruct has {len(instruct)} characters; at most {MAX_INSTRUCT_CHARACTERS} are read")
    resumed = frames(request.resume.codes, config, "resume.codes") if request.resume else ()
    admitted = Admitted(
        request=request,
        config=config,
        house=house,
        tokenizer=tokenizer,
        sampling=resolve_sampling(request.sampling, config),
        speaker=speaker,
        language=_language(request.language, config, name),
        instruct=tokenizer.instruct(instruct) if instruct.strip() else (),
        reference=reference,
        icl=icl,
        resumed=resumed,
    )
    rows = len(admitted.instruct) + len(reference) + len(icl or ()) + len(resumed)
    if rows + 16 > house.max_positions:
        raise InvalidRequest(
            f"instruct, reference and resumed frames fill {rows} of {house.max_positions} positions: no room is left "
            "to speak"
        )
    return admitted


def frames(codes: Items[int], config: ModelConfig, what: str) -> tuple[Frame, ...]:
    """Flat, frame-major codes as frames; raises `InvalidRequest` for a wrong count or a code outside its book."""
    books, size = config.codebook_count, config.codebook_size
    if len(codes) % books:
        raise InvalidRequest(f"{what} has {len(codes)} codes, which is no multiple of the {books} codes of a frame")
    wrong = next((i for i, code in enumerate(codes) if not 0 <= code < size), None)
    if wrong is not None:
        raise InvalidRequest(f"{what}[{wrong}] is {codes[wrong]}; codes go from 0 to {size - 1}")
    return tuple(tuple(codes[i : i + books]) for i in range(0, len(codes), books))


def check_ids(ids: Items[int], tokenizer: Tokenizer) -> None:
    """Token ids of ordinary text only: control tokens cannot be spoken."""
    wrong = next((index for index in ids if not tokenizer.is_ordinary(index)), None)
    if wrong is not None:
        raise InvalidRequest(
            f"token id {wrong} is not ordinary text of this tokenizer (ids below {tokenizer.ordinary_count}); "
            "send text as strings when the tokenizers differ"
        )


def resolve_sampling(given: SamplingParams, config: ModelConfig) -> ResolvedSampling:
    """Defaults from the checkpoint; a seed is drawn when none is given."""
    base = config.generation

    def pick(name: str, value: float | None, default: float, lowest: float, highest: float = math.inf) -> float:
        chosen = default if value is None else value
        if not (math.isfinite(chosen) and lowest <= chosen <= highest):
            limit = f"from {lowest:g} to {highest:g}" if math.isfinite(highest) else f"at least {lowest:g}"
            raise InvalidRequest(f"sampling.{name} is {chosen}; it must be {limit}")
        return chosen

    seed = secrets.randbits(64) if given.seed is None else given.seed
    if not 0 <= seed < 1 << 64:
        raise InvalidRequest(f"sampling.seed is {seed}; seeds are unsigned 64-bit numbers")
    cold = 1e-3  # below it logits overflow; greedy is the honest way to ask for zero
    return ResolvedSampling(
        seed=seed,
        greedy=given.greedy or not base.do_sample,
        temperature=pick("temperature", given.temperature, base.temperature, cold),
        top_k=int(pick("top_k", given.top_k, base.top_k, 0)),
        top_p=pick("top_p", given.top_p, base.top_p, 1e-6, 1.0),
        repetition_penalty=pick("repetition_penalty", given.repetition_penalty, base.repetition_penalty, 1e-3),
        predictor_greedy=given.greedy or not base.predictor_do_sample,
        predictor_temperature=pick(
            "predictor_temperature", given.predictor_temperature, base.predictor_temperature, cold
        ),
        predictor_top_k=int(pick("predictor_top_k", given.predictor_top_k, base.predictor_top_k, 0)),
        predictor_top_p=pick("predictor_top_p", given.predictor_top_p, base.predictor_top_p, 1e-6, 1.0),
    )


def _speaker(voice: str | CloneVoice | None, config: ModelConfig) -> tuple[Speaker, str | None]:
    if isinstance(voice, CloneVoice):
        return Speaker(vector=_vector(voice, config)), None
    if config.model_type == "base":
        raise InvalidRequest(
            "this model speaks with cloned voices only: give a speaker vector (codec Encode makes one)"
        )
    if config.model_type == "voice_design":
        if voice:
            raise UnknownName(f"this model has no voice {voice!r}: it takes its voice from instruct")
        return Speaker(), None
    name = (voice or next(iter(config.speakers), "")).lower()
    if name not in config.speakers:
        raise UnknownName(f"there is no voice {voice!r}; the voices are {', '.join(config.speakers)}")
    return Speaker(control_id=config.speakers[name]), name


def _vector(voice: CloneVoice, config: ModelConfig) -> tuple[float, ...]:
    if not config.supports_clone:
        raise InvalidRequest(f"a {config.model_type} model cannot clone a voice; use a base model")
    width = config.talker.hidden_size
    if len(voice.speaker_vector) != width:
        raise InvalidRequest(f"clone.speaker_vector has {len(voice.speaker_vector)} numbers, this model's have {width}")
    if not all(map(math.isfinite, voice.speaker_vector)):
        raise InvalidRequest("clone.speaker_vector holds numbers that are not finite")
    return voice.speaker_vector


def _clone(
    voice: str | CloneVoice | None, config: ModelConfig, tokenizer: Tokenizer
) -> tuple[tuple[Frame, ...] | None, tuple[int, ...]]:
    """Reference frames and the ids of their text; neither without codes: then the speaker vector works alone."""
    if not isinstance(voice, CloneVoice) or not voice.codes:
        return None, ()
    if len(voice.reference_text) > MAX_REFERENCE_CHARACTERS:
        raise InvalidRequest(f"clone.reference_text has more than {MAX_REFERENCE_CHARACTERS} characters")
    icl = frames(voice.codes, config, "clone.codes")
    reference = tokenizer.target(voice.reference_text)
    if not reference:
        raise InvalidRequest("clone.codes need clone.reference_text, the words that are spoken in them")
    return icl, reference


def _language(language: str, config: ModelConfig, voice: str | None) -> int | None:
    try:
        return language_id(config, language, voice)
    except KeyError:
        names = ", ".join(("auto", *offered_languages(config)))
        raise UnknownName(f"there is no language {language!r}; the languages are {names}") from None


def _check_numbers(request: UtteranceRequest) -> None:
    if request.layout not in ("streaming", "whole"):
        raise InvalidRequest(f"there is no text layout {request.layout!r}; it is streaming or whole")
    for name in ("max_frames", "max_lead_frames", "text_timeout_s"):
        value = getattr(request, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InvalidRequest(f"{name} is {value}; it must be 0 (no limit) or more")
    ramp = request.packet_ramp
    if len(ramp) > MAX_RAMP_LENGTH or any(size < 1 for size in ramp):
        raise InvalidRequest(f"packet_ramp must hold at most {MAX_RAMP_LENGTH} sizes of at least 1 frame")
