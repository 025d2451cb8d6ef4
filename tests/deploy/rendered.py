"""The manifests as `kubectl kustomize` renders them: every overlay, and every component on an overlay."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import run

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
# What may be applied: an overlay alone, or with components that are chosen where it is deployed.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bare": ("bare", ()),
    "gpu": ("gpu", ()),
    "gpu, one device": ("gpu", ("mps-share",)),
    "scale": ("scale", ()),
    "scale, monitored bare": ("bare", ("monitoring",)),
    "scale, LiveKit": ("scale", ("livekit",)),
    "scale, mTLS": ("scale", ("mtls",)),
    "scale, media on nodes": ("scale", ("host-network",)),
    "bare, KEDA": ("bare", ("keda",)),
    "turn": ("turn", ()),
}
MESH = [name for name in VARIANTS if name != "turn"]
Object = dict[str, Any]


@cache
def objects(variant: str) -> tuple[Object, ...]:
    """All objects of a variant."""
    overlay, components = VARIANTS[variant]
    if not components:
        return _parsed(run("kubectl", "kustomize", str(DEPLOY / "overlays" / overlay)))
    with tempfile.TemporaryDirectory() as directory:
        here = os.path.relpath(DEPLOY, os.path.realpath(directory))  # kustomize reads relative paths alone
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "voicemesh",
            "resources": [f"{here}/overlays/{overlay}"],
            "components": [f"{here}/components/{name}" for name in components],
        }
        Path(directory, "kustomization.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        return _parsed(run("kubectl", "kustomize", directory))


def _parsed(text: str) -> tuple[Object, ...]:
    return tuple(it for it in yaml.safe_load_all(text) if it)


def of_kind(variant: str, *kinds: str) -> dict[str, Object]:
    """Objects of these kinds by name."""
    return {it["metadata"]["name"]: it for it in objects(variant) if it["kind"] in kinds}


def workloads(variant: str) -> dict[str, Object]:
    """Everything that makes pods."""
    return of_kind(variant, "Deployment", "DaemonSet", "Job")


def pod(workload: Object) -> Object:
    """The spec of its pods."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def labels(workload: Object) -> dict[str, str]:
    """The labels of its pods."""
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def containers(workload: Object) -> Iterator[Object]:
    """All of them, those that run before the others too."""
    yield from pod(workload).get("initContainers", ())
    yield from pod(workload)["containers"]


def environment(container: Object) -> dict[str, str]:
    """Values of its variables; what comes from elsewhere is named by its source, as secretKeyRef."""
    return {it["name"]: it.get("value") or next(iter(it["valueFrom"])) for it in container.get("env", ())}


def selects(selector: Object, carried: dict[str, str]) -> bool:
    """Whether a selector of labels chooses what carries them."""
    return selector.get("matchLabels", {}).items() <= carried.items()
