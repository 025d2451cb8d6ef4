"""What an operator expects of manifests, checked on the objects that kustomize renders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import kubernetes_validate
import pytest
import yaml
from voicemesh.brain.v1 import brain_pb2
from voicemesh.codec.v1 import codec_pb2
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.config import ServiceConfig, load
from services.brain.config import BrainConfig
from services.codec.config import CodecConfig
from services.gateway.config import GatewayConfig
from services.tts_lm.config import TtsLmConfig
from tests.deploy.metrics import families
from tests.deploy.rendered import (
    DEPLOY,
    MESH,
    VARIANTS,
    Object,
    containers,
    environment,
    labels,
    objects,
    of_kind,
    pod,
    selects,
    workloads,
)
from tests.deploy.test_monitoring import RECORDED, metrics_of

CONFIGS: dict[str, type[ServiceConfig]] = {
    kind.service: kind for kind in (GatewayConfig, BrainConfig, TtsLmConfig, CodecConfig)
}
PROTOS: dict[str, Any] = {"gateway": gateway_pb2, "brain": brain_pb2, "tts_lm": tts_lm_pb2, "codec": codec_pb2}
GROUPS = {"speech": ("tts_lm", "codec")}
# Of operators: kubernetes-validate has no schemas of theirs.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
CURRENT_MINOR = int(kubernetes_validate.latest_version().split(".")[1])
MINORS = [f"1.{minor}" for minor in (CURRENT_MINOR, CURRENT_MINOR - 1, CURRENT_MINOR - 2)]
LONGEST_ANSWER_S = BrainConfig(port=0).turn_timeout_s
SECRETS = {
    "API_KEYS": "somebody=" + "k" * 32,
    "ICE_SERVERS": '[{"url": "turn:10.0.0.2:3478?transport=udp", "secret": "s"}]',
    "LIVEKIT_URL": "wss://livekit.example",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "s" * 32,
    "OPENAI_API_KEY": "key",
}
ours = pytest.mark.parametrize("variant", MESH)
everywhere = pytest.mark.parametrize("variant", VARIANTS)


def services_of(container: Object) -> tuple[str, ...]:
    """The services that a container of ours runs: `args: [serve, WHAT]`."""
    arguments = container.get("args", [])
    if arguments[:1] != ["serve"]:
        return ()
    return GROUPS.get(arguments[1], (arguments[1],))


def running(variant: str) -> Iterator[tuple[Object, Object, tuple[str, ...]]]:
    """Workload, container and services of everything of ours that serves."""
    for workload in workloads(variant).values():
        for container in pod(workload)["containers"]:
            if services := services_of(container):
                yield workload, container, services


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.timeout(180)
def test_every_object_is_one_to_that_kubernetes(minor: str) -> None:
    rendered = {json.dumps(it, sort_keys=True): it for variant in VARIANTS for it in objects(variant)}
    checked = [it for it in rendered.values() if it["kind"] not in CUSTOM]
    assert len(checked) > 60
    for it in checked:
        kubernetes_validate.validate(it, minor, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    broken = {**of_kind("bare", "Service")["codec"]}
    broken["spec"] = {**broken["spec"], "clusterIp": "None"}
    with pytest.raises(kubernetes_validate.ValidationError, match="clusterIp"):
        kubernetes_validate.validate(broken, MINORS[0], strict=True)


@ours
def test_all_four_services_are_there_once(variant: str) -> None:
    found = sorted(service for _, _, services in running(variant) for service in services)
    assert found == sorted(CONFIGS)


@everywhere
def test_no_container_is_root_or_may_become_it(variant: str) -> None:
    for workload in workloads(variant).values():
        spec = pod(workload)
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@everywhere
def test_only_media_uses_the_network_of_a_node(variant: str) -> None:
    on_node = {name for name, it in workloads(variant).items() if pod(it).get("hostNetwork")}
    allowed = {"turn": {"coturn"}, "scale, media on nodes": {"gateway"}}
    assert on_node == allowed.get(variant, set())
    (namespace,) = of_kind(variant, "Namespace").values()
    enforced = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == ("privileged" if on_node else "restricted")


@everywhere
def test_every_container_has_requests_and_limits(variant: str) -> None:
    for workload in workloads(variant).values():
        for container in containers(workload):
            resources = container["resources"]
            for kind in ("cpu", "memory"):
                assert amount(resources["requests"][kind]) <= amount(resources["limits"][kind])
            for name, limit in resources["limits"].items():
                if name.startswith("nvidia.com/"):
                    assert resources["requests"][name] == limit


def amount(text: Any) -> float:
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}[unit]


@everywhere
def test_images_are_pinned_and_ours_are_of_this_version(variant: str) -> None:
    for workload in workloads(variant).values():
        for container in containers(workload):
            name, _, tag = container["image"].rpartition(":")
            assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), container["image"]
            if name.startswith("voicemesh/"):
                assert tag == version("voicemesh")


@ours
def test_probes_ask_grpc_health_for_ready_and_alive(variant: str) -> None:
    for _, container, services in running(variant):
        names = {CONFIGS[service](port=1).service: own_name(service) for service in services}
        ports = {CONFIGS[service].model_fields["port"].default: names[service] for service in services}
        for probe in ("startupProbe", "readinessProbe"):
            port, name = asked(container[probe])
            assert ports[port] == name
        port, name = asked(container["livenessProbe"])
        assert port in ports
        assert name == ""
        # Nobody may be killed for loading: alive is asked once it has been ready.
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


def asked(probe: Object) -> tuple[int, str]:
    """Port and name that a probe asks health for: the kubelet's own, or ours where the port speaks TLS."""
    if "grpc" in probe:
        return probe["grpc"]["port"], probe["grpc"]["service"]
    command = probe["exec"]["command"]
    assert command[:3] == ["python", "-m", "common.serving.probe"]
    name = command[-1] if command[-1].startswith("voicemesh.") else ""
    return int(command[3].rpartition(":")[2]), name


def test_with_mtls_every_hop_shows_a_certificate() -> None:
    for workload, container, services in running("scale, mTLS"):
        (service,) = services
        config = load(CONFIGS[service], [], environ=variables(container))
        assert config.tls_certificate_file is not None
        if isinstance(config, GatewayConfig):
            assert config.stage_ca_file is not None
            assert config.stage_certificate_file is not None
            assert config.stage_name == "stage.voicemesh"
        else:
            assert config.tls_client_ca_file is not None
            assert container["readinessProbe"]["exec"]["command"][-2] == "stage.voicemesh"
        secrets = {volume["secret"]["secretName"] for volume in pod(workload)["volumes"] if "secret" in volume}
        assert secrets == {f"tls-{workload['metadata']['name']}"}


def own_name(service: str) -> str:
    """The full name under which a service says that it is ready."""
    names = {
        "gateway": "ConversationService",
        "brain": "BrainService",
        "tts_lm": "TtsLmService",
        "codec": "CodecService",
    }
    return str(PROTOS[service].DESCRIPTOR.services_by_name[names[service]].full_name)


@ours
def test_others_have_probes_too(variant: str) -> None:
    for workload in workloads(variant).values():
        if workload["kind"] != "Job":
            for container in pod(workload)["containers"]:
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


@ours
def test_ports_are_those_of_the_code(variant: str) -> None:
    services = of_kind(variant, "Service")
    for workload, container, run in running(variant):
        open_ports = {it["name"]: it["containerPort"] for it in container["ports"]}
        for service in run:
            config = CONFIGS[service]()
            prefix = f"{service.replace('_', '-')}-" if len(run) > 1 else ""
            grpc_name = service.replace("_", "-") if len(run) > 1 else "grpc"
            assert open_ports.pop(grpc_name) == config.port
            assert open_ports.pop(f"{prefix}metrics") == config.telemetry.metrics_port
            if isinstance(config, GatewayConfig):
                assert open_ports.pop("http") == config.http_port
            front = services[service.replace("_", "-")]
            assert selects({"matchLabels": front["spec"]["selector"]}, labels(workload))
            by_name = {it["name"]: it["port"] for it in front["spec"]["ports"]}
            assert by_name["grpc"] == config.port
        assert not open_ports, "a port that nobody listens on"


@ours
def test_every_variable_is_one_that_the_service_takes(variant: str) -> None:
    for _, container, services in running(variant):
        given = variables(container)
        for service in services:
            config = load(CONFIGS[service], [], environ=given)
            assert config.host == "0.0.0.0"
        assert all(name.startswith(tuple(f"VOICEMESH_{it.upper()}_" for it in services)) for name in given)


@ours
def test_the_gateway_finds_every_stage_behind_a_headless_name(variant: str) -> None:
    services = of_kind(variant, "Service")
    (container,) = (container for _, container, run in running(variant) if run == ("gateway",))
    config = load(GatewayConfig, [], environ=variables(container))
    for service, address in (
        ("brain", config.brain_address),
        ("tts_lm", config.tts_lm_address),
        ("codec", config.codec_address),
    ):
        front = services[service.replace("_", "-")]
        assert address == f"dns:///{front['metadata']['name']}:{CONFIGS[service]().port}"
        assert front["spec"]["clusterIP"] == "None"
        assert not front["spec"].get("publishNotReadyAddresses", False)
    assert services["gateway"]["spec"]["sessionAffinity"] == "ClientIP"


def variables(container: Object) -> dict[str, str]:
    """What our configuration reads of its environment, with something of the right kind for what a cluster fills in."""
    own = {name: value for name, value in environment(container).items() if name.startswith("VOICEMESH_")}
    for name, value in own.items():
        if value.startswith("/tls/"):
            own[name] = __file__  # any file that is there
        if value == "fieldRef":
            own[name] = "10.0.0.1"
        if value == "secretKeyRef":
            own[name] = SECRETS[name.removeprefix("VOICEMESH_GATEWAY_").removeprefix("VOICEMESH_BRAIN_")]
    return own


@ours
def test_a_gateway_that_can_be_reached_from_outside_asks_for_keys(variant: str) -> None:
    (container,) = (container for _, container, run in running(variant) if run == ("gateway",))
    config = load(GatewayConfig, [], environ=variables(container))
    assert config.wants_secret == (VARIANTS[variant][0] != "bare")


@ours
def test_who_is_told_to_go_finishes_the_longest_answer_first(variant: str) -> None:
    for workload, container, services in running(variant):
        given = variables(container)
        before_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        for service in services:
            drain_s = load(CONFIGS[service], [], environ=given).drain_deadline_s
            assert drain_s >= LONGEST_ANSWER_S
            assert pod(workload)["terminationGracePeriodSeconds"] >= before_s + drain_s + 10


@everywhere
def test_selectors_choose_what_they_are_meant_for(variant: str) -> None:
    made = workloads(variant)
    for name, it in made.items():
        if it["kind"] != "Job":
            assert selects(it["spec"]["selector"], labels(it)), name
    for name, it in of_kind(variant, "Service").items():
        chosen = [each for each in made.values() if selects({"matchLabels": it["spec"]["selector"]}, labels(each))]
        assert len(chosen) == 1, name
        named = {port["name"] for container in pod(chosen[0])["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in it["spec"]["ports"]} <= named
    for name, it in of_kind(variant, "PodDisruptionBudget").items():
        assert selects(it["spec"]["selector"], labels(made[name]))
        assert it["spec"]["maxUnavailable"] == 1
    assert of_kind(variant, "PodDisruptionBudget").keys() >= {
        name for name, it in made.items() if it["kind"] == "Deployment" and name != "collector"
    }
    for it in made.values():
        for spread in pod(it).get("topologySpreadConstraints", ()):
            assert selects(spread["labelSelector"], labels(it))


@ours
def test_every_stage_is_spread_over_zones_and_nodes(variant: str) -> None:
    for workload, _, _ in running(variant):
        keys = {it["topologyKey"] for it in pod(workload)["topologySpreadConstraints"]}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


@everywhere
def test_the_cluster_adds_no_variables_that_look_like_ours(variant: str) -> None:
    # Kubernetes turns a Service `voicemesh-codec` into VOICEMESH_CODEC_PORT, which the codec would read.
    assert not any(name.startswith("voicemesh") for name in of_kind(variant, "Service"))
    assert all(pod(it)["enableServiceLinks"] is False for it in workloads(variant).values())


@everywhere
def test_every_mount_has_its_volume_and_every_reference_its_object(variant: str) -> None:
    claims, maps = of_kind(variant, "PersistentVolumeClaim"), of_kind(variant, "ConfigMap")
    accounts = of_kind(variant, "ServiceAccount")
    for it in workloads(variant).values():
        volumes = {volume["name"]: volume for volume in pod(it).get("volumes", ())}
        mounted = {mount["name"] for container in containers(it) for mount in container.get("volumeMounts", ())}
        assert mounted == volumes.keys()
        for volume in volumes.values():
            assert volume.keys() & {"emptyDir", "persistentVolumeClaim", "configMap", "secret"}
            assert volume.get("persistentVolumeClaim", {}).get("claimName", None) in {None, *claims}
            assert volume.get("configMap", {}).get("name", None) in {None, *maps}
        assert pod(it).get("serviceAccountName") in {None, *accounts}
        for source in (
            entry.get("valueFrom", {}) for container in containers(it) for entry in container.get("env", ())
        ):
            assert source.get("configMapKeyRef", {}).get("name") in {None, *maps}


@everywhere
def test_no_secret_is_written_down(variant: str) -> None:
    assert not of_kind(variant, "Secret")
    for it in workloads(variant).values():
        for container in containers(it):
            for name, value in environment(container).items():
                if re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", name):
                    assert value == "secretKeyRef", name


def test_both_overlays_with_gpus_prepare_pods_alike() -> None:
    gpu, scale = (DEPLOY / "overlays" / name / "on-a-gpu.yaml" for name in ("gpu", "scale"))
    assert gpu.read_bytes() == scale.read_bytes()  # kustomize reads no file above its own directory


def test_each_gpu_has_an_owner() -> None:
    def owned(variant: str) -> dict[str, Any]:
        return {
            name: count
            for name, it in workloads(variant).items()
            for container in pod(it)["containers"]
            for kind, count in container["resources"]["limits"].items()
            if kind.startswith("nvidia.com/")
        }

    assert owned("bare") == {}
    assert owned("gpu") == {"speech": 1, "brain": 1}
    assert owned("scale") == {"tts-lm": 1, "codec": 1, "vllm": 2}
    shared = [c["resources"]["limits"] for it in workloads("gpu, one device").values() for c in pod(it)["containers"]]
    assert sum(limits.get("nvidia.com/gpu.shared", 0) for limits in shared) == 2
    (arguments,) = (c["args"] for c in pod(workloads("scale")["vllm"])["containers"])
    assert "--tensor-parallel-size=2" in arguments


def test_the_autoscalers_ask_for_what_the_adapter_serves_from_what_a_page_serves() -> None:
    adapter = yaml.safe_load((DEPLOY / "components" / "hpa" / "adapter.yaml").read_text(encoding="utf-8"))
    rules = {rule["name"]["as"]: rule for part in ("rules", "externalRules") for rule in adapter[part]}
    asked: set[str] = set()
    for name, it in of_kind("scale", "HorizontalPodAutoscaler").items():
        assert it["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in workloads("scale")[name]["spec"], "the autoscaler owns them"
        asked |= {part["metric"]["name"] for m in it["spec"]["metrics"] for part in (m.get("pods") or m["external"],)}
    assert asked == rules.keys()
    served = {sample.name for family in families().values() for sample in family.samples} | RECORDED.keys()
    for rule in rules.values():
        query = re.sub(r"<<[^>]*>>", "pod", rule["metricsQuery"])
        assert metrics_of(query) - {"pod", "voicemesh_stage"} <= served


def test_keda_scales_the_same_stages_between_the_same_bounds() -> None:
    def bounds(it: Object, low: str, high: str) -> tuple[int, int]:
        return it["spec"][low], it["spec"][high]

    by_hpa = {
        name: bounds(it, "minReplicas", "maxReplicas")
        for name, it in of_kind("scale", "HorizontalPodAutoscaler").items()
    }
    scaled = of_kind("bare, KEDA", "ScaledObject")
    assert {name: bounds(it, "minReplicaCount", "maxReplicaCount") for name, it in scaled.items()} == by_hpa
    served = {sample.name for family in families().values() for sample in family.samples}
    for it in scaled.values():
        for trigger in it["spec"]["triggers"]:
            assert metrics_of(trigger["metadata"]["query"]) - {"avg"} <= served


def test_every_service_is_scraped_and_every_rule_is_there() -> None:
    monitored = objects("scale")
    (monitor,) = (it for it in monitored if it["kind"] == "ServiceMonitor")
    (rule,) = (it for it in monitored if it["kind"] == "PrometheusRule")
    assert len(rule["spec"]["groups"]) == 4
    endpoint = monitor["spec"]["endpoints"][0]["port"]
    for service in of_kind("scale", "Service").values():
        if selects(monitor["spec"]["selector"], service["metadata"].get("labels", {})):
            assert endpoint in {port["name"] for port in service["spec"]["ports"]}
    dashboards = of_kind("scale", "ConfigMap")["voicemesh-dashboards"]
    assert len(dashboards["data"]) == 3


def test_traces_reach_the_collector_by_parts_that_it_has() -> None:
    from common.telemetry import Attribute

    for _, container, _ in running("scale"):
        assert environment(container)["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://collector:4317"
    (name,) = (name for name in of_kind("scale", "ConfigMap") if name.startswith("collector"))
    config = yaml.safe_load(of_kind("scale", "ConfigMap")[name]["data"]["collector-config.yaml"])
    for pipeline in config["service"]["pipelines"].values():
        for part, names in pipeline.items():
            assert set(names) <= config[part].keys()
    assert set(config["service"]["extensions"]) == config["extensions"].keys()
    policies = config["processors"]["tail_sampling"]["policies"]
    keys = {part["key"] for policy in policies for part in policy.values() if isinstance(part, dict) and "key" in part}
    assert keys <= {attribute.value for attribute in Attribute}
