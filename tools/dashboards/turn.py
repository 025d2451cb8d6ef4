"""The dashboard of turns: what a person waits for and what they hear."""

from __future__ import annotations

from tools.dashboards.panel import Dashboard, Panel, Query, quantile, quantiles, rate

HOP = "voicemesh_turn_hop_duration_seconds"


def _hops(share: float, good: str) -> Panel:
    query = Query(quantile(share, HOP, "voicemesh_milestone"), "{{voicemesh_milestone}}")
    return Panel(f"Hops of a turn, p{share * 100:g}", good, "s", (query,), stacked=True)


TURN = Dashboard(
    "voicemesh-turn",
    "Voicemesh: turn",
    "From the end of a person's speech to the first sound they hear, hop by hop; interruptions; playout.",
    {
        "From voice to voice": (
            Panel(
                "Time to first audio",
                "Good: p50 below 0.3 s and p95 below 0.5 s; a point on the graph is a turn, open its trace.",
                "s",
                quantiles("voicemesh_turn_time_to_first_audio_seconds"),
                limit=0.5,
            ),
            Panel(
                "Milestones since the end of speech, p95",
                "Good: the lines lie close together and none moves alone; the first to rise is the one to look at.",
                "s",
                (
                    Query(
                        quantile(0.95, "voicemesh_turn_milestone_time_seconds", "voicemesh_milestone"),
                        "{{voicemesh_milestone}}",
                    ),
                ),
            ),
            Panel(
                "Brain: time to first token",
                "Good: p95 below 0.25 s; beyond it the brain waits for a slot or its prompt has grown.",
                "s",
                quantiles("gen_ai_server_time_to_first_token_seconds"),
                limit=0.5,
            ),
            Panel(
                "Speech: time to first packet",
                "Good: p95 below 0.17 s: 0.12 for tts_lm and 0.05 for codec; look at their slots and queues next.",
                "s",
                quantiles("voicemesh_turn_time_to_first_packet_seconds"),
                limit=0.2,
            ),
        ),
        "Where the time goes": (
            _hops(0.5, "Good: endpoint is the tallest part; every other hop of a usual turn is below 0.1 s."),
            _hops(0.95, "Good: the same shape as p50, at most twice as tall; a part that alone grew is the cause."),
            _hops(0.99, "Good: below 1 s in all; what shows only here is contention: queues, retries, lost replicas."),
        ),
        "Interruptions": (
            Panel(
                "Silence after a voice",
                "Good: p50 at most 0.15 s and p95 at most 0.2 s from a person's first sound to our silence.",
                "s",
                quantiles("voicemesh_turn_interruption_silence_seconds"),
                limit=0.2,
            ),
            Panel(
                "Voices during an answer",
                "Good: false alarms stay below a fifth of all; many of them mean echo or a noisy room.",
                "ops",
                (rate("voicemesh_turn_interruptions_total", "voicemesh_verdict"),),
            ),
            Panel(
                "Answers begun early",
                "Good: more kept than dropped; dropped ones cost compute and nothing else.",
                "ops",
                (rate("voicemesh_turn_speculations_total", "voicemesh_outcome"),),
            ),
            Panel(
                "Turns by end",
                "Good: COMPLETED and CANCELLED only; FAILED, RUNAWAY and LENGTH are heard by people.",
                "ops",
                (rate("voicemesh_turn_ended_total", "voicemesh_finish_reason"),),
            ),
        ),
        "Playout": (
            Panel(
                "Underruns",
                "Good: none; each is a gap that somebody heard in the middle of a word.",
                "ops",
                (rate("voicemesh_playout_underruns_total", "voicemesh_stage"),),
                limit=0.02,
            ),
            Panel(
                "Playout lead",
                "Good: between 0.2 and 0.4 s; p5 below 0.08 s comes before underruns.",
                "s",
                tuple(
                    Query(quantile(share, "voicemesh_playout_lead_seconds"), f"p{share * 100:g}")
                    for share in (0.05, 0.5, 0.95)
                ),
            ),
            Panel(
                "Pauses in answers",
                "Good: below 0.01 s of silence per second; the brain is slower than speech when it rises.",
                "s",
                (Query("sum(rate(voicemesh_playout_pause_seconds_total[$__rate_interval]))", "pause"),),
            ),
            Panel(
                "Lateness of the pacer",
                "Good: p99 below 5 ms; beyond it the gateway's process has too many sessions or too little CPU.",
                "s",
                quantiles("voicemesh_pacer_lateness_seconds"),
                limit=0.01,
            ),
            Panel(
                "Blocks not sent",
                "Good: none; the pacer skips a block of 20 ms rather than send two at once.",
                "ops",
                (Query("sum(rate(voicemesh_pacer_skipped_total[$__rate_interval]))", "skipped"),),
            ),
        ),
    },
)
