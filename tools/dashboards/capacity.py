"""The dashboard of capacity: who is there, who fits in, and what the autoscaler sees."""

from __future__ import annotations

from tools.dashboards.panel import Dashboard, Panel, Query, quantiles

STAGE = "voicemesh_stage"

CAPACITY = Dashboard(
    "voicemesh-capacity",
    "Voicemesh: capacity",
    "Sessions against room, slots against limits, devices, and the figures that scale the stages.",
    {
        "Room": (
            Panel(
                "Sessions",
                "Good: active below limit with room for the next hour's growth.",
                "none",
                (
                    Query("sum(voicemesh_session_active)", "active"),
                    Query("sum(voicemesh_session_limit)", "limit"),
                ),
            ),
            Panel(
                "Sessions, share of room",
                "Good: below 0.8; the gateways scale at 0.7.",
                "percentunit",
                (Query("voicemesh:sessions:used_share", "all gateways"),),
                limit=0.8,
            ),
            Panel(
                "Slots, share of limit",
                "Good: below 0.9 in every stage; the stage that is fullest decides how many people fit in.",
                "percentunit",
                (Query("voicemesh:stage_slots:used_share", "{{voicemesh_stage}}"),),
                limit=0.9,
            ),
            Panel(
                "Replicas",
                "Good: what was deployed; a replica that is missing here was lost or does not answer Prometheus.",
                "none",
                (Query(f"count by ({STAGE}) (voicemesh_slot_limit)", "{{voicemesh_stage}}"),),
            ),
        ),
        "Autoscaler": (
            Panel(
                "What scales the stages: slots",
                "Good: around 0.7, where the autoscaler holds it; pinned at 1 it has reached its maximum of pods.",
                "percentunit",
                (Query("voicemesh:pod_slots:used_share", "{{voicemesh_stage}} {{pod}}"),),
            ),
            Panel(
                "What scales the stages: first product, p95",
                "Good: below the target of the autoscaler: 0.1 s for tts_lm and codec, 0.25 s for the brain.",
                "s",
                (Query("voicemesh:stage_first_seconds:p95", "{{voicemesh_stage}}"),),
            ),
            Panel(
                "Compute per second of sound",
                "Good: flat; times the slots in use it is the load of one device.",
                "none",
                quantiles("voicemesh_utterance_rtf", STAGE),
            ),
        ),
        "Devices": (
            Panel(
                "GPU memory",
                "Good: flat from READY on, below 0.95: everything is allocated before the first request.",
                "percentunit",
                (
                    Query(
                        "max by (instance, hw_id) (hw_gpu_memory_usage_bytes / hw_gpu_memory_limit_bytes)",
                        "{{instance}} {{hw_id}}",
                    ),
                ),
                limit=0.95,
            ),
            Panel(
                "GPU utilisation",
                "Good: follows the slots in use; busy with idle slots means somebody else is on the device.",
                "percentunit",
                (Query("max by (instance, hw_id) (hw_gpu_utilization)", "{{instance}} {{hw_id}}"),),
            ),
            Panel(
                "Event loop lateness",
                "Good: p99 below 0.02 s; beyond it the gateway wants more CPU or fewer sessions.",
                "s",
                quantiles("voicemesh_loop_blocked_seconds"),
            ),
        ),
    },
)
