"""What stands in infra/deploy is data; each piece is checked against what reads it."""

import json
import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from vitpipe.infra import metrics
from vitpipe.infra.exporter import SETTING, Address
from vitpipe.infra.ray.connect import RAY_SETTINGS

DEPLOY = Path(metrics.__file__).resolve().parent / "deploy"
REPOSITORY = DEPLOY.parents[1]
METRIC = re.compile(r"\bvitpipe_[a-z_]+")
RULES = DEPLOY / "prometheus-rules.yaml"
LABEL = re.compile(r"[{,]\s*([a-z_]+)\s*(?:=~|!=|=)")


def documents(name: str) -> list[Any]:
    return list(YAML(typ="safe").load_all(DEPLOY / name))


def unknown(query: str) -> set[str]:
    """Names in a PromQL query that we neither export nor record."""
    recorded = {rule["record"] for group in documents(RULES.name)[0]["groups"] for rule in group["rules"]
                if "record" in rule}  # fmt: skip
    names = set(METRIC.findall(query)) | {name for name in re.findall(r"\bvitpipe:[a-z_:]+", query)}
    return {name for name in names if name.removeprefix(metrics.PREFIX) not in metrics.KNOWN and name not in recorded}


def queries_of_board() -> list[str]:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    panels = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return panels + [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]


def test_every_query_uses_names_that_exist() -> None:
    rules = [rule["expr"] for group in documents(RULES.name)[0]["groups"] for rule in group["rules"]]
    for query in chain(queries_of_board(), rules):
        assert not unknown(query), query
        assert METRIC.search(query) or "vitpipe:" in query, query
        assert set(LABEL.findall(query)) <= set(metrics.LABELS), query
    assert unknown("rate(vitpipe_losss[5m])") == {"vitpipe_losss"}, "a wrong name would be found"


def test_the_board_shows_every_metric() -> None:
    shown = " ".join([*queries_of_board(), RULES.read_text()])
    hidden = {name for name in metrics.KNOWN if f"{metrics.PREFIX}{name}" not in shown}
    assert hidden <= {"samples_seen"}, hidden


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_promtool_agrees() -> None:
    check = ("promtool", "check", "config", "prometheus.yaml")  # the rules are tested under a real run, in tests/faults
    done = subprocess.run(check, cwd=DEPLOY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_on_kubernetes_each_run_of_the_head_is_scraped(tmp_path: Path) -> None:
    """By what the operator makes of a PodMonitor: its relabelings, on a pod as Kubernetes describes it."""
    of_runs, of_ray = documents("podmonitor.yaml")
    kinds = {document["kind"]: document for document in documents("kuberay-cluster.yaml")}
    cluster = kinds["RayCluster"]
    assert of_runs["spec"]["selector"]["matchLabels"] == {
        "ray.io/cluster": cluster["metadata"]["name"],
        "ray.io/node-type": "head",  # KubeRay's own labels
    }
    for monitor in (of_runs, of_ray):
        assert monitor["metadata"]["namespace"] == cluster["metadata"]["namespace"]
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} == {
            "metrics"
        }  # KubeRay's name
    (head,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (setting,) = [one["value"] for one in head["env"] if one["name"] == SETTING]
    assert setting == f"0.0.0.0:{Address().port}"
    scraped = {_scraped(endpoint, tmp_path) for endpoint in of_runs["spec"]["podMetricsEndpoints"]}
    assert scraped == {f"10.1.2.3:{Address().port + run}" for run in range(4)}
    let_in = [rule["ports"] for rule in kinds["NetworkPolicy"]["spec"]["ingress"] if "monitoring" in str(rule)]
    assert {"port": 9464, "endPort": 9467, "protocol": "TCP"} in chain(*let_in)


def _scraped(endpoint: dict[str, Any], folder: Path) -> str:
    """The address that Prometheus asks for this endpoint of a pod at 10.1.2.3."""
    named = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    rules = [{named.get(key, key): value for key, value in rule.items()} for rule in endpoint["relabelings"]]
    pod = {"targets": ["10.1.2.3:8080"], "labels": {"__meta_kubernetes_pod_ip": "10.1.2.3"}}
    job = {"job_name": "pod", "static_configs": [pod], "relabel_configs": rules}
    (folder / "prometheus.json").write_text(json.dumps({"scrape_configs": [job]}))  # JSON is YAML
    command = ["promtool", "check", "service-discovery", "--timeout=1s", folder / "prometheus.json", "pod"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    return str(found[0]["labels"]["__address__"])


def pods(name: str) -> list[dict[str, Any]]:
    """Pod specs anywhere in a manifest."""

    def walk(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            here = [value] if "containers" in value else []
            return here + [pod for inner in value.values() for pod in walk(inner)]
        return [pod for inner in value for pod in walk(inner)] if isinstance(value, list) else []

    return walk(documents(name))


@pytest.mark.parametrize("name", ["kuberay-cluster.yaml", "kuberay-job.yaml"])
def test_pods_have_no_rights_they_do_not_need(name: str) -> None:
    assert pods(name)
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
        assert pod["automountServiceAccountToken"] is False
        mounted = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
            assert rights["capabilities"]["drop"] == ["ALL"]
            assert rights["capabilities"].get("add", ["IPC_LOCK"]) == ["IPC_LOCK"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= mounted
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
            assert not [one for one in container.get("env", ()) if "value" in one and "TOKEN" in one["name"]]


def test_kuberay_asks_for_the_token_and_offers_nothing_outside() -> None:
    kinds = {document["kind"]: document for document in documents("kuberay-cluster.yaml")}
    spec = kinds["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert kinds["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress"]
    (job,) = documents("kuberay-job.yaml")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": kinds["RayCluster"]["metadata"]["name"]}
    # what is importable wherever the head starts the job, not only in the image's working directory
    assert job["spec"]["entrypoint"].startswith("python -m vitpipe.pipeline run ")


@pytest.mark.ray
def test_ray_accepts_the_aws_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    (config,) = documents("aws-cluster.yaml")
    validate_config(fillout_defaults(config))
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all(command.startswith(f"RAY_AUTH_MODE={RAY_SETTINGS['RAY_AUTH_MODE']} ray start") for command in starts)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][0]
    assert config["provider"]["use_internal_ips"] is True
    with pytest.raises(Exception, match="surprise"):
        validate_config({**fillout_defaults(config), "surprise": 1})


def test_the_image_is_locked_by_hash_and_runs_without_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert any("--require-hashes --no-deps" in line for line in lines)
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    assert "ENV" in "".join(lines) and any("RAY_AUTH_MODE=token" in line for line in lines)
    assert not [line for line in lines if line.startswith("ADD") or "curl" in line]
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (REPOSITORY / source).exists(), f"{line}: {source}"
    copied = {source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]}
    assert {"pyproject.toml", "vitpipe", "pipeline", "stages", "infra", "configs"} <= copied


def test_the_locks_versions_are_those_of_the_constraints() -> None:
    known = {line for line in (REPOSITORY / "constraints.txt").read_text().split() if "==" in line}
    text = (DEPLOY / "requirements.lock").read_text()
    assert {line.split()[0] for line in text.splitlines() if "==" in line} <= known, "run `make lock`"


def matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path) is not None


def allowed(policy: str, action: str, path: str) -> bool:
    resource = f"arn:aws:s3:::{path}"
    statements = json.loads((DEPLOY / policy).read_text())["Statement"]
    return any(
        statement["Effect"] == "Allow"
        and action in statement["Action"]
        and any(matches(one, resource) for one in _listed(statement["Resource"]))
        for statement in statements
    )


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


RUN = "RUNS_BUCKET/RUNS_PREFIX/demo/backbone"


@pytest.mark.parametrize(
    ("action", "path", "right"),
    [
        ("s3:GetObject", "DATA_BUCKET/images/cat/1.jpg", True),
        ("s3:PutObject", "DATA_BUCKET/images/cat/1.jpg", False),
        ("s3:DeleteObject", "DATA_BUCKET/images/cat/1.jpg", False),
        ("s3:PutObject", f"{RUN}/record.json", True),
        ("s3:DeleteObject", f"{RUN}/record.json", False),
        ("s3:DeleteObject", f"{RUN}/a3/step-100/state/zero.pt", True),
        ("s3:DeleteObject", "RUNS_BUCKET/RUNS_PREFIX/demo/lease.json", False),
        ("s3:PutObject", "RUNS_BUCKET/another/demo/record.json", False),
        ("s3:GetObject", "OTHER_BUCKET/key", False),
    ],
)
def test_nodes_may_do_what_a_run_needs_and_no_more(action: str, path: str, right: bool) -> None:
    assert allowed("iam-policy.json", action, path) is right


def test_only_the_collector_may_delete() -> None:
    assert allowed("iam-policy-gc.json", "s3:DeleteObject", f"{RUN}/a1/train-000000.tar")
    assert not allowed("iam-policy-gc.json", "s3:DeleteObject", "DATA_BUCKET/images/cat/1.jpg")
    for policy in ("iam-policy.json", "iam-policy-gc.json"):
        statements = json.loads((DEPLOY / policy).read_text())["Statement"]
        actions = {action for one in statements if one["Effect"] == "Allow" for action in _listed(one["Action"])}
        assert not [action for action in actions if "*" in action]
