"""The measures of a stage: `common.observer.Observer` on OpenTelemetry instruments."""

from __future__ import annotations

from opentelemetry.metrics import Histogram, Meter
from opentelemetry.util.types import AnyValue

from common.telemetry import names
from common.telemetry.names import Attribute


class StageObserver:
    """One stage's instruments. Attributes are the stage and, for ends, the reason: a few dozen series in all."""

    def __init__(self, meter: Meter, stage: str) -> None:
        self._on: dict[str, AnyValue] = {Attribute.STAGE: stage}
        self._step = meter.create_histogram(
            names.STEP_DURATION.format(stage=stage),
            "s",
            "One step over all active slots",
            explicit_bucket_boundaries_advisory=names.STEP_EDGES_S,
        )
        self._batch = meter.create_histogram(
            names.STEP_BATCH_SIZE.format(stage=stage),
            "{slot}",
            "Active slots in one step",
            explicit_bucket_boundaries_advisory=names.BATCH_EDGES,
        )
        self._starved = meter.create_counter(
            names.STEP_STARVED.format(stage=stage), "{step}", "Steps that a sequence sat out for want of text"
        )
        self._prefixes = meter.create_counter(
            names.PREFIX_LOOKUPS.format(stage=stage), "{lookup}", "Prompts whose beginning was kept, or was not"
        )
        self._slot_usage = meter.create_gauge(names.SLOT_USAGE, "{slot}", "Slots leased")
        self._slot_limit = meter.create_gauge(names.SLOT_LIMIT, "{slot}", "Slots there are")
        self._age = _seconds(meter, names.QUEUE_AGE, "How long a request waited in a queue")
        self._lead = meter.create_histogram(
            names.PLAYOUT_LEAD,
            "s",
            "Audio produced ahead of its playout",
            explicit_bucket_boundaries_advisory=names.LEAD_EDGES_S,
        )
        self._underruns = meter.create_counter(names.PLAYOUT_UNDERRUNS, "{underrun}", "Playout had nothing to play")
        self._cancel = _seconds(meter, names.CANCEL_DURATION, "From a cancel accepted to its slot free")
        self._stale = meter.create_counter(names.STREAM_STALE, "{item}", "Items of an older epoch dropped")
        self._repeats = meter.create_counter(names.STREAM_REPEATS, "{item}", "Items dropped that had been there before")
        self._utterances = meter.create_counter(names.UTTERANCES, "{utterance}", "Utterances ended, by reason")
        self._first = _seconds(meter, names.UTTERANCE_TIME_TO_FIRST, "From start accepted to the first product")
        self._compute = _seconds(
            meter, names.UTTERANCE_COMPUTE, "Compute time of an utterance, its share of batched work"
        )
        self._rtf = meter.create_histogram(
            names.UTTERANCE_RTF,
            "1",
            "Compute time by audio time; below 1 is faster than real time",
            explicit_bucket_boundaries_advisory=names.RTF_EDGES,
        )

        for counter in (self._underruns, self._stale, self._repeats):
            counter.add(0, self._on)  # there from the start: a rate over a counter's first sight of the world misses it

    def step(self, duration_s: float, batch_size: int) -> None:
        self._step.record(duration_s, self._on)
        self._batch.record(batch_size, self._on)

    def slots(self, in_use: int, total: int) -> None:
        self._slot_usage.set(in_use, self._on)
        self._slot_limit.set(total, self._on)

    def waited(self, age_s: float) -> None:
        self._age.record(age_s, self._on)

    def starved(self, count: int = 1) -> None:
        self._starved.add(count, self._on)

    def prefix(self, hit: bool) -> None:
        self._prefixes.add(1, {**self._on, Attribute.PREFIX_HIT: hit})

    def lead(self, lead_s: float) -> None:
        self._lead.record(lead_s, self._on)

    def underrun(self, count: int = 1) -> None:
        self._underruns.add(count, self._on)

    def cancelled(self, duration_s: float) -> None:
        self._cancel.record(duration_s, self._on)

    def stale(self, count: int = 1) -> None:
        self._stale.add(count, self._on)

    def repeated(self, count: int = 1) -> None:
        self._repeats.add(count, self._on)

    def ended(self, reason: str, *, time_to_first_s: float | None, compute_s: float, audio_s: float) -> None:
        self._utterances.add(1, {**self._on, Attribute.FINISH_REASON: reason})
        self._compute.record(compute_s, self._on)
        if time_to_first_s is not None:
            self._first.record(time_to_first_s, self._on)
        if audio_s > 0:
            self._rtf.record(compute_s / audio_s, self._on)


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=names.LATENCY_EDGES_S)
