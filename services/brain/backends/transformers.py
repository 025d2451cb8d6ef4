"""A local model through transformers: any causal language model with a chat template, or a Qwen3-Omni thinker.

One worker thread owns the model and computes one answer at a time, the most urgent first; transcripts make way for
everything else. For many people at once there is vLLM.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, StoppingCriteria

from common.errors import Broken, MeshError, NotReady, UnknownName
from common.stream import FinishReason
from services.brain.audio import SAMPLE_RATE_HZ
from services.brain.backend import NORMAL, TRANSCRIPT, BackendInfo, Call, Delta, Finish, Opening, Piece, Samples, Usage
from services.brain.options import LocalOptions
from services.brain.prompt import ChatMessage, Conversation, transcription
from services.brain.types import BrainSampling, Role
from services.brain.vocabulary import Vocabulary

logger = logging.getLogger(__name__)
MAX_TRANSCRIPT_TOKENS = 512
AUDIO_PLACE = "<|audio_pad|>"
_PROBE = Conversation((ChatMessage(Role.USER, "hello"),))
_Inputs = dict[str, torch.Tensor]


@dataclass(order=True)
class _Job:
    """One answer to compute; ordered by urgency, then by age. `put` carries results to the loop."""

    priority: int
    number: int
    conversation: Conversation = field(compare=False)
    sampling: BrainSampling = field(compare=False)
    put: Callable[[object], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class TransformersBackend:
    """The `Backend` over a checkpoint directory or a hub id."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._doubtful = False

    async def start(self) -> None:
        """Load the model. Raises `UnknownName` or `InvalidRequest` with a sentence when it cannot be one."""
        await asyncio.to_thread(self._load)
        self._thread = threading.Thread(target=self._run, name="transformers", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        options = self._options
        where = {"local_files_only": options.local_files_only}
        try:
            config = AutoConfig.from_pretrained(options.model, **where)
            self._vocabulary = Vocabulary(AutoTokenizer.from_pretrained(options.model, **where))
            self._hears = config.model_type.startswith("qwen3_omni_moe")
            self._model: Any = self._model_class().from_pretrained(options.model, dtype=self._dtype(), **where)
            self._ears = _Ears(options.model, where) if self._hears else None
            self._defaults = _generation_config(options.model, where)
        except (OSError, ValueError) as error:
            raise UnknownName(f"no model at {options.model!r}: {str(error).splitlines()[0]}") from error
        self._model.to(options.device).eval()
        text = getattr(self._model.config, "text_config", self._model.config)
        ends = self._defaults.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._room = min(text.max_position_embeddings, options.max_model_tokens or text.max_position_embeddings)

    def _model_class(self) -> Any:
        if not self._hears:
            return AutoModelForCausalLM
        from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

        return Qwen3OmniMoeThinkerForConditionalGeneration

    def _dtype(self) -> torch.dtype:
        if self._options.dtype == "auto":
            return torch.bfloat16 if self._options.device.startswith("cuda") else torch.float32
        return torch.bfloat16 if self._options.dtype == "bfloat16" else torch.float32

    def info(self) -> BackendInfo:
        """See `Backend`."""
        return BackendInfo(
            self._options.model, "transformers", self._vocabulary.fingerprint, self._hears, calls_tools=True
        )

    def open(self, opening: Opening) -> TransformersExchange:
        """See `Backend`."""
        return TransformersExchange(self, opening.priority)

    async def check(self) -> None:
        """See `Backend`: after a fault, one token has to come before it is trusted again."""
        if self._thread is None or not self._thread.is_alive():
            raise NotReady("the model's thread is not running", reason="DEPENDENCY_DOWN")
        if self._doubtful:
            async for _ in self.generate(_PROBE, BrainSampling(max_tokens=1), NORMAL):
                pass
            self._doubtful = False

    async def close(self) -> None:
        """See `Backend`. The thread ends after the step that it is at."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(_Job(-1, next(self._numbers), _PROBE, BrainSampling(), lambda item: None, cancelled=True))
            await asyncio.to_thread(thread.join)

    async def generate(
        self, conversation: Conversation, sampling: BrainSampling, priority: int
    ) -> AsyncGenerator[Delta, None]:
        """One answer, as deltas. Closing the generator stops the model at its next token."""
        if self._thread is None:
            raise NotReady("the model is closed", reason="DEPENDENCY_DOWN")
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[object] = asyncio.Queue()

        def put(item: object) -> None:
            try:
                loop.call_soon_threadsafe(items.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody waits any more
                job.cancelled = True

        job = _Job(priority, next(self._numbers), conversation, sampling, put)
        self._jobs.put(job)
        try:
            async for delta in self._read(items, conversation, sampling):
                yield delta
        finally:
            job.cancelled = True

    async def _read(
        self, items: asyncio.Queue[object], conversation: Conversation, sampling: BrainSampling
    ) -> AsyncGenerator[Delta, None]:
        """The worker's items, parsed: `Usage`, then (token, time), then how many there were, or an error."""
        parser = self._vocabulary.parser(sampling.stop, bool(conversation.tools))
        count = 0
        made_s = 0.0
        while True:
            item = await items.get()
            if isinstance(item, MeshError):
                raise item
            if isinstance(item, Usage):
                yield item
                continue
            if isinstance(item, tuple):
                token, made_s = item
                count += 1
                for part in parser.push((token,)):
                    yield part if isinstance(part, Call) else Piece(part[0], part[1], made_s)
                if not parser.stopped:
                    continue
            for part in parser.finish():
                yield part if isinstance(part, Call) else Piece(part[0], part[1], made_s)
            yield Finish(item if isinstance(item, FinishReason) else FinishReason.COMPLETED, count)
            return

    # On the worker's thread.

    def _run(self) -> None:
        while self._thread is not None:
            job = self._jobs.get()
            if job.cancelled:
                continue
            try:
                self._answer(job)
            except MeshError as error:
                job.put(error)
            except Exception:
                logger.exception("the model failed")
                self._doubtful = True
                job.put(Broken("the model failed; the log says how"))

    def _answer(self, job: _Job) -> None:
        limit = job.sampling.max_tokens or self._room
        conversation = self._vocabulary.fit(
            job.conversation, self._room - min(limit, self._room // 2), lambda it: len(self._ids(it))
        )
        inputs = self._inputs(conversation)
        prompt = int(inputs["input_ids"].shape[1])
        job.put(Usage(prompt, 0))
        made = _Made(job, self._jobs)
        if job.sampling.seed is not None:
            torch.manual_seed(job.sampling.seed % 2**63)
        with torch.inference_mode():
            self._model.generate(
                **inputs,
                generation_config=self._generation(job.sampling, min(limit, self._room - prompt)),
                streamer=made,
                stopping_criteria=[made],
            )
        if made.outranked:
            self._jobs.put(_Job(job.priority, job.number, job.conversation, job.sampling, job.put))
        else:
            for token in made.kept:
                job.put((token, time.time()))
            job.put(FinishReason.COMPLETED if made.last in self._ends else FinishReason.LENGTH)

    def _ids(self, conversation: Conversation) -> list[int]:
        """Prompt ids, with as many places for each recording as it has features."""
        text = self._vocabulary.render(conversation)
        return self._vocabulary.encode(_expand(text, self._ears.places(conversation)) if self._ears else text)

    def _inputs(self, conversation: Conversation) -> _Inputs:
        ids = torch.tensor([self._ids(conversation)])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self._ears is not None:
            inputs |= self._ears.features(conversation, self._model.dtype)
        return {name: value.to(self._options.device) for name, value in inputs.items()}

    def _generation(self, sampling: BrainSampling, max_new_tokens: int) -> GenerationConfig:
        config: GenerationConfig = copy.deepcopy(self._defaults)
        config.max_new_tokens = max_new_tokens
        if sampling.top_p is not None:
            config.top_p = sampling.top_p
        if sampling.temperature == 0:
            config.do_sample, config.temperature, config.top_p, config.top_k = False, 1.0, 1.0, 50
        elif sampling.temperature is not None:
            config.do_sample, config.temperature = True, sampling.temperature
        return config


class TransformersExchange:
    """One turn of it. What is heard is kept by the engine until the turn is complete."""

    def __init__(self, backend: TransformersBackend, priority: int) -> None:
        self._backend = backend
        self._priority = priority

    def hear(self, samples: Samples) -> None:
        """See `Exchange`."""

    def answer(self, conversation: Conversation, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
        """See `Exchange`."""
        return self._backend.generate(conversation, sampling, self._priority)

    async def transcript(self, conversation: Conversation) -> str:
        """See `Exchange`."""
        sampling = BrainSampling(temperature=0, max_tokens=MAX_TRANSCRIPT_TOKENS)
        deltas = self._backend.generate(transcription(conversation), sampling, TRANSCRIPT)
        return "".join([delta.text async for delta in deltas if isinstance(delta, Piece)]).strip()

    def close(self) -> None:
        """See `Exchange`: closing the generators is all there is to do."""


class _Made(StoppingCriteria):
    """Sees every token as it is made, as transformers' streamer, and stops the model, as its stopping criterion."""

    def __init__(self, job: _Job, jobs: queue.PriorityQueue[_Job]) -> None:
        self._job, self._jobs = job, jobs
        self._is_prompt = True
        self.last = -1
        self.kept: list[int] = []
        self.outranked = False

    def put(self, value: torch.Tensor) -> None:
        """The prompt first, then one token a call."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self.last = int(value.reshape(-1)[-1])
        if self._job.priority == TRANSCRIPT:  # it may have to begin again
            self.kept.append(self.last)
        else:
            self._job.put((self.last, time.time()))

    def end(self) -> None:
        """Nothing is held back."""

    def __call__(self, input_ids: torch.Tensor, scores: object, **rest: object) -> torch.Tensor:
        waiting = self._jobs.queue[0] if self._jobs.queue else None
        self.outranked = self._job.priority == TRANSCRIPT and waiting is not None and waiting < self._job
        stop = self._job.cancelled or self.outranked
        return torch.full((input_ids.shape[0],), stop, dtype=torch.bool, device=input_ids.device)


class _Ears:
    """Recordings as Qwen3-Omni's audio encoder takes them: 128 mel bands, 100 a second, 13 places a second."""

    def __init__(self, model: str, where: dict[str, Any]) -> None:
        from transformers import WhisperFeatureExtractor
        from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as omni

        extractor: Any = WhisperFeatureExtractor
        self._extract: Any = extractor.from_pretrained(model, **where)
        self._places: Any = omni._get_feat_extract_output_lengths

    def places(self, conversation: Conversation) -> list[int]:
        """How many places each recording takes in the prompt."""
        hop = int(self._extract.hop_length)
        return [int(self._places(torch.tensor(-(-heard.size // hop)))) for heard in _recordings(conversation)]

    def features(self, conversation: Conversation, dtype: torch.dtype) -> _Inputs:
        """Mel bands [recordings, 128, T] and their mask; nothing without recordings."""
        heard = _recordings(conversation)
        if not heard:
            return {}
        made = self._extract(
            heard, sampling_rate=SAMPLE_RATE_HZ, return_attention_mask=True, padding=True, truncation=False,
            return_tensors="pt",
        )  # fmt: skip
        return {"input_features": made["input_features"].to(dtype), "feature_attention_mask": made["attention_mask"]}


def _recordings(conversation: Conversation) -> list[Samples]:
    return [message.samples for message in conversation.messages if message.samples is not None]


def _expand(text: str, places: list[int]) -> str:
    """Each audio place becomes as many as its recording takes."""
    parts = text.split(AUDIO_PLACE)
    assert len(parts) == len(places) + 1, "the template has one place for each recording"
    return parts[0] + "".join(AUDIO_PLACE * count + part for count, part in zip(places, parts[1:], strict=True))


def _generation_config(model: str, where: dict[str, Any]) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(model, **where)
    except OSError:
        return GenerationConfig()  # type: ignore[no-untyped-call]
