"""NetworkPolicies: everything is closed but the picture of the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.rendered import MESH, Object, labels, of_kind, pod, selects, workloads

ELSEWHERE, MONITORING, NAMES = "anywhere", "monitoring", "kube-system"
Edge = tuple[str, str, str]  # from, to, port
PICTURE = {
    ("gateway", "brain", "50051"),
    ("gateway", "tts-lm", "50052"),
    ("gateway", "codec", "50053"),
}
ONE_CONTAINER = {
    ("gateway", "brain", "50051"),
    ("gateway", "speech", "50052"),
    ("gateway", "speech", "50053"),
}


def edges(variant: str) -> set[Edge]:
    """Every way that some policy opens on both of its ends, pods by name; ports by number."""
    made = workloads(variant)
    policies = of_kind(variant, "NetworkPolicy").values()
    out = {edge for policy in policies for edge in _opened(policy, "egress", "to", made)}
    into = {(peer, me, port) for policy in policies for me, peer, port in _opened(policy, "ingress", "from", made)}
    inside = {edge for edge in out & into if {edge[0], edge[1]} <= made.keys()}
    outward = {edge for edge in out if edge[1] not in made}
    inward = {edge for edge in into if edge[0] not in made}
    return inside | outward | inward


def _opened(policy: Object, direction: str, side: str, made: dict[str, Object]) -> set[Edge]:
    found: set[Edge] = set()
    mine = [name for name, it in made.items() if selects(policy["spec"]["podSelector"], labels(it))]
    for rule in policy["spec"].get(direction, ()):
        peers = [name for part in rule.get(side, [None]) for name in _peers(part, made)]
        for me in mine:
            for peer in peers:
                whose = made.get(me if direction == "ingress" else peer)
                found |= {(me, peer, _port(port, whose)) for port in rule["ports"]}
    return found


def _peers(part: Any, made: dict[str, Object]) -> list[str]:
    if part is None:
        return [ELSEWHERE]
    if "namespaceSelector" in part:
        return [str(part["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])]
    chosen = [name for name, it in made.items() if selects(part["podSelector"], labels(it))]
    assert chosen, f"{part} chooses nobody"
    return chosen


def _port(port: Object, whose: Object | None) -> str:
    number = port["port"]
    if isinstance(number, str):
        assert whose is not None
        named = {it["name"]: it["containerPort"] for c in pod(whose)["containers"] for it in c["ports"]}
        number = named[number]
    protocol = "" if port.get("protocol", "TCP") == "TCP" else "/udp"
    return f"{number}-{port['endPort']}{protocol}" if "endPort" in port else f"{number}{protocol}"


@pytest.mark.parametrize("variant", MESH)
def test_every_pod_is_closed_in_both_directions_unless_told_otherwise(variant: str) -> None:
    closed = of_kind(variant, "NetworkPolicy")["closed"]["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("variant", MESH)
def test_inside_the_mesh_only_the_picture_is_open(variant: str) -> None:
    made = workloads(variant)
    inside = {edge for edge in edges(variant) if {edge[0], edge[1]} <= made.keys()}
    expected = set(ONE_CONTAINER if "speech" in made else PICTURE)
    if "vllm" in made:
        expected.add(("brain", "vllm", "8000"))
    if "collector" in made:
        told = {name for name, it in made.items() if labels(it).get("app.kubernetes.io/part-of") == "voicemesh"}
        expected |= {(name, "collector", "4317") for name in told}
    assert inside == expected


@pytest.mark.parametrize("variant", MESH)
def test_from_outside_only_people_and_prometheus_come_in(variant: str) -> None:
    made = workloads(variant)
    inward = {edge for edge in edges(variant) if edge[0] not in made}
    people = {(ELSEWHERE, "gateway", "50050"), (ELSEWHERE, "gateway", "8080")}
    if "vllm" in made:
        people.add((ELSEWHERE, "gateway", "30000-39999/udp"))
    assert {edge for edge in inward if edge[0] == ELSEWHERE} == people
    scraped = {edge[1] for edge in inward if edge[0] == MONITORING}
    assert scraped == {name for name, it in made.items() if it["kind"] == "Deployment"} - {"collector"}
    assert {edge[0] for edge in inward} == {ELSEWHERE, MONITORING}


@pytest.mark.parametrize("variant", MESH)
def test_only_who_has_to_reaches_outside(variant: str) -> None:
    made = workloads(variant)
    outward = {edge for edge in edges(variant) if edge[1] not in made and edge[1] != NAMES}
    beyond = {edge[0] for edge in outward if edge[1] == ELSEWHERE}
    expected = {"fetch-models"} & made.keys()
    if "vllm" in made:
        expected.add("gateway")  # media
    assert beyond == expected
    assert {edge[0] for edge in outward if edge[1] == MONITORING} == {"collector"} & made.keys()
