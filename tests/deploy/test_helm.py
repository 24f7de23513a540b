"""deploy/helm/async-stt, rendered by Helm and checked against the schemas of Kubernetes and of the operators."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config import load_settings
from core.messaging.port import QueueName
from core.version import VERSION
from internal.process import READY_INTERVAL, STOP_TIMEOUT
from tests.deploy import kubernetes
from tests.deploy.tools import ROOT, program, run

Manifest = dict[str, Any]
CHART = ROOT / "deploy" / "helm" / "async-stt"
SECRET: dict[str, Any] = {"existingSecret": "stt-secret"}
EXTERNAL: dict[str, Any] = {"externalSecret": {"enabled": True, "storeRef": {"name": "vault"}}}
PEERS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
EVERYTHING: dict[str, Any] = {
    **EXTERNAL,
    "image": {"repository": "registry.example.org/async-stt", "tag": "v2"},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"MAX_UPLOAD_SIZE_MB": "2048", "LANGUAGES": "en,vi,de"},
    "models": {"install": ["small-q5_1", "base"], "persistence": {"enabled": True, "storageClass": "nfs"}},
    "consumer": {"nodeSelector": {"disk": "fast"}, "tolerations": [{"operator": "Exists"}]},
    "autoscaling": {"minReplicas": 0},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "stt-tls"},
    "networkPolicy": {"apiFrom": PEERS, "metricsFrom": PEERS, "stores": PEERS, "extraEgress": [{"to": PEERS}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
BY_CPU: dict[str, Any] = {**SECRET, "autoscaling": {"by": "cpu", "minReplicas": 0}}
BARE: dict[str, Any] = {
    **SECRET,
    "autoscaling": {"by": "none"},
    "networkPolicy": {"enabled": False},
    "disruptionBudget": {"enabled": False},
}
CASES = {"defaults": SECRET, "everything": EVERYTHING, "cpu": BY_CPU, "bare": BARE}
OURS = ("api", "consumer", "scheduler")
KUBERNETES = "1.34.4"
"""Version of the schemas in deploy/install-deploy-tools.sh."""
SECRETS = {
    "migrate": {"DATABASE_URL"},
    "consumer": {"DATABASE_URL", "RABBITMQ_URL", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"},
    "scheduler": {"DATABASE_URL", "RABBITMQ_URL", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "SECRET_KEY"},
    "api": {"DATABASE_URL", "RABBITMQ_URL", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "SECRET_KEY", "API_KEY"},
}
"""The same as in the compose file: the consumer signs nothing, migrations need only the database."""


def helm(command: str, values: dict[str, Any], folder: Path) -> Any:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    words = {"lint": ["--strict"], "template": ["stt", "--namespace", "speech"]}[command]
    # a Helm built from its module has no version of Kubernetes
    return run(program("helm"), command, *words, str(CHART), "--kube-version", KUBERNETES, "--values", str(file))


def rendered(values: dict[str, Any], folder: Path) -> dict[tuple[str, str], Manifest]:
    """Return the objects by kind and component, which is unique for each kind."""
    done = helm("template", values, folder)
    assert done.returncode == 0, done.stderr
    objects = [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
    keys = [(item["kind"], item["metadata"]["labels"]["app.kubernetes.io/component"]) for item in objects]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, objects, strict=True))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Manifest]:
    return rendered(CASES[request.param], tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Manifest]:
    return rendered(EVERYTHING, tmp_path_factory.mktemp("chart"))


def pods(objects: dict[tuple[str, str], Manifest]) -> dict[str, Manifest]:
    """Return the pod specifications by component."""
    return {
        component: manifest["spec"]["template"]["spec"]
        for (kind, component), manifest in objects.items()
        if kind in ("Deployment", "Job")
    }


def test_every_object_has_the_schema_of_its_kind(case: dict[tuple[str, str], Manifest]) -> None:
    assert {name: found for name, manifest in case.items() if (found := kubernetes.errors(manifest))} == {}


def test_the_schemas_reject_what_an_api_server_rejects(everything: dict[tuple[str, str], Manifest]) -> None:
    def wrong(kind: str, component: str, text: str, replacement: str) -> list[str]:
        changed = re.sub(text, replacement, yaml.safe_dump(everything[kind, component]), count=1)
        return kubernetes.errors(yaml.safe_load(changed))

    assert wrong("Deployment", "api", "readOnlyRootFilesystem", "readOnlyRootFileSystem")
    assert wrong("Deployment", "api", "replicas: 2", "replicas: '2'")
    assert wrong("NetworkPolicy", "api", "podSelector", "podSelectors")
    assert wrong("ScaledObject", "consumer", "scaleTargetRef", "scaleTarget")
    assert wrong("ScaledObject", "consumer", "pollingInterval: 15", "pollingInterval: 15s")
    assert wrong("ExternalSecret", "secret", "kind: ClusterSecretStore", "kind: Vault")
    assert wrong("ServiceMonitor", "consumer", "interval: 15s", "interval: soon")


def test_the_expected_objects_are_there(everything: dict[tuple[str, str], Manifest]) -> None:
    kinds = {kind for kind, _ in everything}
    assert kinds == {
        "Deployment", "Job", "Service", "ServiceAccount", "Ingress", "PersistentVolumeClaim", "NetworkPolicy",
        "PodDisruptionBudget", "ScaledObject", "TriggerAuthentication", "ExternalSecret", "ServiceMonitor",
    }  # fmt: skip


def test_helm_finds_no_fault(tmp_path: Path) -> None:
    for values in CASES.values():
        done = helm("lint", values, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "set existingSecret"),
        ({"externalSecret": {"enabled": True}}, "storeRef.name is needed"),
        ({**SECRET, "consumers": 3}, "consumers"),
        ({**SECRET, "settings": {"SECRET_KEY": "x" * 40}}, "SECRET_KEY"),
        ({**SECRET, "settings": {"MAX_RETRIES": 3}}, "MAX_RETRIES"),
        ({**SECRET, "autoscaling": {"by": "memory"}}, "by"),
        ({**SECRET, "autoscaling": {"queues": [{"name": "stt_chunk", "messagesPerConsumer": 20}]}}, "name"),
        ({**SECRET, "consumer": {"terminationGracePeriodSeconds": 30}}, "terminationGracePeriodSeconds"),
        ({**SECRET, "consumer": {"resources": {"limits": {"memory": "8 GB"}}}}, "memory"),
        ({**SECRET, "storage": {"endpoint": "http://minio:9000"}}, "endpoint"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    done = helm("template", values, tmp_path)
    assert done.returncode != 0
    assert reason in done.stderr


def test_pods_meet_the_restricted_security_standard(case: dict[tuple[str, str], Manifest]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    for pod in pods(case).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_each_container_has_only_its_own_secrets(case: dict[tuple[str, str], Manifest]) -> None:
    for component, pod in pods(case).items():
        variables = pod["containers"][0]["env"]
        assert len({variable["name"] for variable in variables}) == len(variables)
        secret = {variable["name"] for variable in variables if "valueFrom" in variable}
        assert secret == SECRETS[component]
        assert "envFrom" not in pod["containers"][0]


def test_each_process_starts_with_its_settings(everything: dict[tuple[str, str], Manifest]) -> None:
    secret = {
        "DATABASE_URL": "postgresql://stt:long-password@db/stt",
        "RABBITMQ_URL": "amqp://stt:long-password@queue/",
        "API_KEY": f"stt_{'0' * 16}_{'a' * 48}",
    }
    for pod in pods(everything).values():
        variables = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
        values = {
            name.lower(): value or secret.get(name, f"{name.lower()}-0123456789abcdef0123456789abcdef")
            for name, value in variables.items()
            if value != ""
        }
        assert load_settings(_env_file=None, **values).database_url.startswith("postgresql+asyncpg://")


def test_volumes_probes_and_selectors_refer_to_what_exists(case: dict[tuple[str, str], Manifest]) -> None:
    for pod in pods(case).values():
        mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
    for (kind, component), manifest in case.items():
        if kind == "Deployment":
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()
        if kind == "Service":
            selected = case["Deployment", component]["spec"]["template"]
            assert manifest["spec"]["selector"].items() <= selected["metadata"]["labels"].items()
            ports = {port["name"] for port in selected["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in manifest["spec"]["ports"]} <= ports
        if kind in ("ScaledObject", "HorizontalPodAutoscaler"):
            assert manifest["spec"]["scaleTargetRef"]["name"] == case["Deployment", "consumer"]["metadata"]["name"]
            assert "replicas" not in case["Deployment", "consumer"]["spec"]


def test_a_pod_ends_before_it_is_killed(case: dict[tuple[str, str], Manifest]) -> None:
    for component in OURS:
        pod = pods(case)[component]
        pause = 5 if "lifecycle" in pod["containers"][0] else 0
        assert pod["terminationGracePeriodSeconds"] > STOP_TIMEOUT + pause


def test_probes_ask_the_process(case: dict[tuple[str, str], Manifest]) -> None:
    for component in ("consumer", "scheduler"):
        container = pods(case)[component]["containers"][0]
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            script = container[name]["exec"]["command"][2]
            seconds = int(re.findall(r"-(\d+) seconds", script)[0])
            assert seconds > 2 * READY_INTERVAL
            assert f'"$READY_FILE" -newermt "-{seconds} seconds"' in script
    api = pods(case)["api"]["containers"][0]
    assert {api[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")} == {"/live"}


def test_keda_reads_queues_of_the_service(everything: dict[tuple[str, str], Manifest]) -> None:
    spec = everything["ScaledObject", "consumer"]["spec"]
    names = [trigger["metadata"]["queueName"] for trigger in spec["triggers"]]
    assert names[0] == QueueName.CHUNKS
    # from none, every kind of work has to start a consumer
    assert set(names) == {QueueName.CHUNKS, QueueName.JOBS, QueueName.FETCH, QueueName.FINALISE}
    assert spec["minReplicaCount"] == 0
    assert spec["fallback"]["replicas"] >= 1
    reference = everything["TriggerAuthentication", "consumer"]["spec"]["secretTargetRef"][0]
    written = {item["secretKey"] for item in everything["ExternalSecret", "secret"]["spec"]["data"]}
    assert reference["key"] in written
    assert written == set().union(*SECRETS.values()) | {reference["key"]}


def test_nobody_reads_metrics_unless_allowed(tmp_path: Path) -> None:
    for values, rules in ((SECRET, 0), (EVERYTHING, 1)):
        objects = rendered(values, tmp_path)
        for component in ("consumer", "scheduler"):
            policy = objects["NetworkPolicy", component]["spec"]
            assert len(policy["ingress"]) == rules
            assert all(rule["from"] for rule in policy["ingress"])
        assert objects["NetworkPolicy", "migrate"]["spec"]["ingress"] == []


def test_private_addresses_are_out_of_reach_but_for_the_stores(tmp_path: Path) -> None:
    objects = rendered(SECRET, tmp_path)
    public = {component: str(objects["NetworkPolicy", component]["spec"]["egress"]) for component in (*OURS, "migrate")}
    assert all(("0.0.0.0/0" in text) == (component in ("consumer", "scheduler")) for component, text in public.items())
    assert "169.254.0.0/16" in public["consumer"]


def test_the_chart_has_the_version_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_every_value_is_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) | {"global"} == set(schema["properties"])
    for name, part in values.items():
        if isinstance(part, dict) and part:
            assert set(part) == set(schema["properties"][name]["properties"]), name
