"""The arithmetic of capacity, and that the handbook shows what it says."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.deploy.rendered import DEPLOY, environment, of_kind, pod, workloads
from tools.capacity import Load, Pods, at_once, main, plan

HANDBOOK = (DEPLOY.parent / "docs" / "operations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"`python -m tools\.capacity ?([^`]*)`\n\n((?:\|.*\n)+)", HANDBOOK)


def test_the_handbook_has_its_worked_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize(("arguments", "shown"), EXAMPLES)
def test_an_example_of_the_handbook_is_what_the_command_prints(
    arguments: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(arguments)) == 0
    assert capsys.readouterr().out == shown


@given(st.integers(1, 100_000), st.floats(0.01, 1.0), st.integers(1, 500))
def test_with_the_spare_pods_lost_everybody_still_fits(people: int, share: float, each: int) -> None:
    load = Load(people, share, share)
    pods = Pods(each, each, each, each, each)
    for units, count in plan(load, pods).values():
        assert (count - pods.spare) * each * pods.fill >= units - 1e-6


def test_chance_takes_more_room_the_fewer_people_there_are() -> None:
    assert at_once(10_000, 1.0) == 10_000
    assert at_once(100, 0.4) == 55
    assert at_once(10_000, 0.4) == 4147
    assert at_once(2, 0.5) == 2


def test_what_a_pod_carries_in_the_arithmetic_is_what_scale_deploys() -> None:
    def setting(name: str, variable: str) -> int:
        (container,) = pod(workloads("scale")[name])["containers"]
        return int(environment(container)[variable])

    pods = Pods()
    assert setting("gateway", "VOICEMESH_GATEWAY_MAX_SESSIONS") == pods.gateway_sessions
    assert setting("tts-lm", "VOICEMESH_TTS_LM_SLOT_COUNT") == pods.tts_lm_streams
    assert setting("codec", "VOICEMESH_CODEC_SLOT_COUNT") == pods.codec_streams
    assert setting("brain", "VOICEMESH_BRAIN_SLOT_COUNT") == pods.brain_turns


def test_the_autoscalers_may_grow_to_what_ten_thousand_speakers_take() -> None:
    scalers = of_kind("scale", "HorizontalPodAutoscaler")
    for stage, (_, count) in plan(Load(), Pods()).items():
        if stage != "vllm":
            assert scalers[stage.replace("_", "-")]["spec"]["maxReplicas"] >= count
