"""The dashboard of stages: one service, or all of them beside each other."""

from __future__ import annotations

from tools.dashboards.panel import Dashboard, Panel, Query, quantile, quantiles, rate

STAGE = "voicemesh_stage"
CHOSEN = '{voicemesh_stage=~"$stage"}'
STEPPING = ("tts_lm", "codec")


def _steps(share: float) -> tuple[Query, ...]:
    return tuple(
        Query(quantile(share, f"voicemesh_{stage}_step_duration_seconds"), f"{stage} p{share * 100:g}")
        for stage in STEPPING
    )


STAGES = Dashboard(
    "voicemesh-stage",
    "Voicemesh: stage",
    "Latency, batches, slots, queues and errors of gateway, brain, tts_lm and codec.",
    {
        "Latency": (
            Panel(
                "Time to first product",
                "Good: tts_lm and codec below 0.1 s, brain below 0.25 s at p95; it counts from an accepted start.",
                "s",
                quantiles("voicemesh_utterance_time_to_first_seconds", STAGE, CHOSEN),
                limit=0.5,
            ),
            Panel(
                "Step time",
                "Good: flat, and below 80 ms, the sound that one step makes; it rises with the batch, not with time.",
                "s",
                (*_steps(0.5), *_steps(0.95)),
                limit=0.08,
            ),
            Panel(
                "Real-time factor",
                "Good: p95 below 0.5; at 1 a stage makes sound as slowly as people hear it.",
                "none",
                quantiles("voicemesh_utterance_rtf", STAGE, CHOSEN),
                limit=0.9,
            ),
            Panel(
                "Cancel to free slot",
                "Good: p95 below 0.08 s, one frame; a slot that is not freed speaks to nobody.",
                "s",
                quantiles("voicemesh_cancel_duration_seconds", STAGE, CHOSEN),
            ),
        ),
        "Load": (
            Panel(
                "Slots",
                "Good: used stays below limit; where the lines meet, new speech is refused.",
                "none",
                (
                    Query(f"sum by ({STAGE}) (voicemesh_slot_usage{CHOSEN})", "{{voicemesh_stage}} used"),
                    Query(f"sum by ({STAGE}) (voicemesh_slot_limit{CHOSEN})", "{{voicemesh_stage}} limit"),
                ),
            ),
            Panel(
                "Batch",
                "Good: close to the slots in use; far below it, sequences sit out steps.",
                "none",
                tuple(
                    Query(
                        f"sum(rate(voicemesh_{stage}_step_batch_size_sum[$__rate_interval])) / "
                        f"sum(rate(voicemesh_{stage}_step_batch_size_count[$__rate_interval]))",
                        stage,
                    )
                    for stage in STEPPING
                ),
            ),
            Panel(
                "Queue age",
                "Good: p95 below 0.02 s; a request that waits longer should have gone to another replica.",
                "s",
                quantiles("voicemesh_queue_age_seconds", STAGE, CHOSEN),
                limit=0.1,
            ),
            Panel(
                "Prompts whose beginning was kept",
                "Good: mostly true; false is a prefill in full: a new voice, or more voices than are kept.",
                "ops",
                (rate("voicemesh_tts_lm_prefix_lookups_total", "voicemesh_prefix_hit"),),
            ),
            Panel(
                "Starved steps",
                "Good: rises only while a slow brain speaks; tts_lm waits for text and nothing is lost.",
                "ops",
                (Query("sum(rate(voicemesh_tts_lm_step_starved_total[$__rate_interval]))", "tts_lm"),),
            ),
        ),
        "Errors": (
            Panel(
                "Utterances by end",
                "Good: COMPLETED and CANCELLED; FAILED says why in its trace, RUNAWAY means a voice ran away.",
                "ops",
                (
                    Query(
                        f"sum by ({STAGE}, voicemesh_finish_reason) "
                        f"(rate(voicemesh_utterance_ended_total{CHOSEN}[$__rate_interval]))",
                        "{{voicemesh_stage}} {{voicemesh_finish_reason}}",
                    ),
                ),
            ),
            Panel(
                "Calls by status",
                "Good: OK and CANCELLED; INTERNAL is a defect, RESOURCE_EXHAUSTED a full house, UNAVAILABLE a drain.",
                "ops",
                (rate("rpc_server_call_duration_seconds_count", "rpc_response_status_code"),),
            ),
            Panel(
                "Dropped",
                "Good: stale follows interruptions, repeats follow lost replicas; neither rises alone.",
                "ops",
                (
                    Query(
                        f"sum by ({STAGE}) (rate(voicemesh_stream_stale_total{CHOSEN}[$__rate_interval]))",
                        "{{voicemesh_stage}} stale",
                    ),
                    Query(
                        f"sum by ({STAGE}) (rate(voicemesh_stream_repeats_total{CHOSEN}[$__rate_interval]))",
                        "{{voicemesh_stage}} repeats",
                    ),
                ),
            ),
            Panel(
                "Compute of an utterance",
                "Good: follows the length of answers; it rises alone when a device slows down.",
                "s",
                quantiles("voicemesh_utterance_compute_duration_seconds", STAGE, CHOSEN),
            ),
        ),
    },
)
