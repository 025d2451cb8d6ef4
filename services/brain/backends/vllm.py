"""vLLM's engine in this process: text models and Qwen3-Omni's thinker, for many people at once.

While a person still speaks, everything before their words is prefilled at low priority, so that with prefix caching
only their own turn is left to do at its end. Ids are detokenised here, by the code that transformers' backend uses, so
that text and ids stay together; the same goes for chat template and tool calls. An engine that died is built anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")  # vLLM reports its use to its makers unless told not to

from transformers import AutoConfig, AutoTokenizer
from vllm import AsyncEngineArgs, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from common.errors import Broken, InvalidRequest, NotReady, UnknownName
from common.stream import FinishReason
from services.brain.audio import SAMPLE_RATE_HZ
from services.brain.backend import (
    SPECULATIVE,
    TRANSCRIPT,
    BackendInfo,
    Call,
    Delta,
    Finish,
    Opening,
    Piece,
    Samples,
    Usage,
)
from services.brain.options import LocalOptions
from services.brain.prompt import Conversation, for_template, transcription
from services.brain.types import BrainSampling
from services.brain.vocabulary import Vocabulary

logger = logging.getLogger(__name__)
MAX_TRANSCRIPT_TOKENS = 512
PLACES_PER_S = 13
"""Tokens that Qwen3-Omni makes of a second of audio, for fitting history into the context."""


class VllmBackend:
    """The `Backend` over vLLM's AsyncLLM."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._numbers = itertools.count()
        self._revival: asyncio.Task[None] | None = None
        self._engine: AsyncLLM | None = None

    async def start(self) -> None:
        """Load the tokenizer and start the engine, which takes from seconds to minutes."""
        where = {"local_files_only": self._options.local_files_only}
        try:
            config = await asyncio.to_thread(AutoConfig.from_pretrained, self._options.model, **where)
            tokenizer = await asyncio.to_thread(AutoTokenizer.from_pretrained, self._options.model, **where)
        except (OSError, ValueError) as error:
            raise UnknownName(f"no model at {self._options.model!r}: {str(error).splitlines()[0]}") from error
        self._hears = any(hasattr(config, name) for name in ("thinker_config", "audio_config"))
        self._vocabulary = Vocabulary(tokenizer)
        await self._build()

    async def _build(self) -> None:
        engine = await asyncio.to_thread(AsyncLLM.from_engine_args, self._arguments())
        self._defaults = engine.model_config.get_diff_sampling_param()
        self._room = int(engine.model_config.max_model_len)
        self._engine = engine

    def _arguments(self) -> AsyncEngineArgs:
        options = self._options
        values: dict[str, Any] = {
            "model": options.model,
            "dtype": options.dtype if options.dtype != "auto" else "bfloat16",
            "max_model_len": options.max_model_tokens,
            "max_num_seqs": 2 * options.slot_count,
            "enable_prefix_caching": True,
            "scheduling_policy": "priority",
            "gpu_memory_utilization": options.gpu_memory_share,
            "tensor_parallel_size": options.tensor_parallel,
            "enable_log_requests": False,
        }
        if self._hears:
            values["limit_mm_per_prompt"] = {"audio": options.max_audio_per_prompt, "image": 0, "video": 0}
        return AsyncEngineArgs(**(values | options.extra))

    def info(self) -> BackendInfo:
        """See `Backend`."""
        return BackendInfo(self._options.model, "vllm", self._vocabulary.fingerprint, self._hears, calls_tools=True)

    def open(self, opening: Opening) -> VllmExchange:
        """See `Backend`."""
        return VllmExchange(self, opening)

    @property
    def unfinished_count(self) -> int:
        """Requests that the engine still works at."""
        return self._engine.get_num_unfinished_requests() if self._engine is not None else 0

    async def check(self) -> None:
        """See `Backend`. A dead engine is replaced; until then this raises `NotReady`."""
        if self._engine is None or self._engine.errored:
            if self._revival is None or self._revival.done():
                self._revival = asyncio.create_task(self._revive())  # owned here, cancelled in `close`
            raise NotReady("the model's engine died and is being started again", reason="DEPENDENCY_DOWN")
        await self._engine.check_health()

    async def _revive(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)
        try:
            await self._build()
        except Exception:  # the top of this task: the next check tries again
            logger.exception("the engine did not start again")

    async def close(self) -> None:
        """See `Backend`."""
        if self._revival is not None:
            self._revival.cancel()
            await asyncio.wait([self._revival])
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)

    async def generate(
        self, conversation: Conversation, sampling: BrainSampling, priority: int
    ) -> AsyncGenerator[Delta, None]:
        """One answer, as deltas. Closing the generator aborts the request."""
        limit = min(sampling.max_tokens or self._room, self._room // 2)
        ids, recordings = await asyncio.to_thread(self._prompt, conversation, limit)
        parser = self._vocabulary.parser(sampling.stop, bool(conversation.tools))
        parameters = self._parameters(sampling, limit)
        count, told = 0, False
        async with contextlib.aclosing(self._run(ids, recordings, parameters, priority)) as outputs:
            async for output in outputs:
                made_s = time.time()
                if not told:
                    told = True
                    yield Usage(len(output.prompt_token_ids or ()), output.num_cached_tokens or 0)
                made = output.outputs[0]
                count += len(made.token_ids)
                for part in parser.push(made.token_ids):
                    yield part if isinstance(part, Call) else Piece(part[0], part[1], made_s)
                if parser.stopped or made.finish_reason is not None:
                    break
        for part in parser.finish():
            yield part if isinstance(part, Call) else Piece(part[0], part[1], made_s)
        cut = made.finish_reason == "length" and not parser.stopped
        yield Finish(FinishReason.LENGTH if cut else FinishReason.COMPLETED, count)

    async def prefill(self, conversation: Conversation) -> None:
        """Compute what stands before the person's next words, so that the cache has it."""
        ids, recordings = await asyncio.to_thread(self._prefix, conversation)
        if ids:
            parameters = SamplingParams(max_tokens=1, detokenize=False)
            async with contextlib.aclosing(self._run(ids, recordings, parameters, SPECULATIVE)) as outputs:
                async for _ in outputs:
                    pass

    async def _run(
        self, ids: list[int], recordings: list[Samples], parameters: SamplingParams, priority: int
    ) -> AsyncGenerator[Any, None]:
        """vLLM's outputs for a prompt; its errors become ours."""
        engine = self._engine
        if engine is None or engine.errored:
            raise NotReady("the model's engine is not running", reason="DEPENDENCY_DOWN")
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if recordings:
            prompt["multi_modal_data"] = {"audio": [(recording, SAMPLE_RATE_HZ) for recording in recordings]}
        try:
            parsed = parse_model_prompt(engine.model_config, prompt)
            renderer = engine.renderer
            (rendered,) = await renderer.render_cmpl_async([parsed], renderer.default_cmpl_tok_params)
            name = f"turn-{next(self._numbers)}"
            async with contextlib.aclosing(engine.generate(rendered, parameters, name, priority=priority)) as outputs:
                async for output in outputs:
                    yield output
        except EngineDeadError as error:
            raise NotReady("the model's engine died", reason="DEPENDENCY_DOWN") from error
        except EngineGenerateError as error:
            raise Broken("the model's engine failed; its log says how") from error
        except (VLLMValidationError, ValueError) as error:
            raise InvalidRequest("the model does not take this turn", reason="UNSUPPORTED") from error

    def _parameters(self, sampling: BrainSampling, limit: int) -> SamplingParams:
        given = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
        known = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        values = {name: value for name, value in self._defaults.items() if name in known}
        values |= {name: value for name, value in given.items() if value is not None}
        if "seed" in values:
            values["seed"] %= 2**63
        try:
            return SamplingParams(**values, max_tokens=limit, output_kind=RequestOutputKind.DELTA, detokenize=False)
        except (VLLMValidationError, ValueError) as error:
            raise InvalidRequest("the model does not take this sampling", reason="UNSUPPORTED") from error

    def _prompt(self, conversation: Conversation, limit: int) -> tuple[list[int], list[Samples]]:
        """Ids with one place for each recording, which vLLM widens, and the recordings."""
        fitting = self._vocabulary.fit(conversation, self._room - limit, self._length)
        return self._vocabulary.encode(self._vocabulary.render(fitting)), for_template(fitting)[1]

    def _prefix(self, conversation: Conversation) -> tuple[list[int], list[Samples]]:
        if not conversation.messages or self._length(conversation) > self._room // 2:
            return [], []
        return self._vocabulary.encode(self._vocabulary.render_before(conversation)), for_template(conversation)[1]

    def _length(self, conversation: Conversation) -> int:
        heard_s = sum(samples.size for samples in for_template(conversation)[1]) / SAMPLE_RATE_HZ
        return len(self._vocabulary.encode(self._vocabulary.render(conversation))) + round(heard_s * PLACES_PER_S)


class VllmExchange:
    """One turn of it."""

    def __init__(self, backend: VllmBackend, opening: Opening) -> None:
        self._backend = backend
        self._priority = opening.priority
        self._prefill = asyncio.create_task(self._prepare(opening.conversation))  # owned here, cancelled in `close`

    async def _prepare(self, conversation: Conversation) -> None:
        """Nothing depends on it: a fault shows when the answer is wanted."""
        with contextlib.suppress(NotReady, Broken, InvalidRequest):
            await self._backend.prefill(conversation)

    def hear(self, samples: Samples) -> None:
        """See `Exchange`: the model takes a recording whole; the engine keeps it until the turn is complete."""

    def answer(self, conversation: Conversation, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
        """See `Exchange`. What the prefill has not done by now, the answer does itself."""
        self._prefill.cancel()
        return self._backend.generate(conversation, sampling, self._priority)

    async def transcript(self, conversation: Conversation) -> str:
        """See `Exchange`."""
        sampling = BrainSampling(temperature=0, max_tokens=MAX_TRANSCRIPT_TOKENS)
        deltas = self._backend.generate(transcription(conversation), sampling, TRANSCRIPT)
        return "".join([delta.text async for delta in deltas if isinstance(delta, Piece)]).strip()

    def close(self) -> None:
        """See `Exchange`."""
        self._prefill.cancel()
