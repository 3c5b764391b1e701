"""The files by which one gets a cluster are what its machinery takes: KubeRay's, Ray's own launcher's, compose's.

KubeRay's CRDs and compose's schema are not ours to carry. With VITPIPE_SCHEMAS naming a folder that holds
ray.io_rayclusters.yaml and ray.io_rayjobs.yaml (kuberay: helm-chart/kuberay-operator/crds) and compose-spec.json
(compose-spec: schema), every field is held against them; without, what a run needs of them is.
"""

import importlib.util
import json
import os
import re
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from vitpipe.infra import errors

DEPLOY = Path(errors.__file__).resolve().parent / "deploy"
ROOT = DEPLOY.parents[1]
SCHEMAS = Path(os.environ.get("VITPIPE_SCHEMAS", "/nowhere"))
foreign = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="VITPIPE_SCHEMAS names no folder of schemas")


def documents(name: str) -> list[Any]:
    return list(YAML(typ="safe").load_all(DEPLOY / name))


def kind(name: str, wanted: str) -> Any:
    return next(one for one in documents(name) if one["kind"] == wanted)


CLUSTER = kind("kuberay-cluster.yaml", "RayCluster")


def strict(schema: Any) -> Any:
    """A CRD's schema in which a field that is not named is an error, as `kubectl --validate=strict` has it."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    inner = {key: strict(value) for key, value in schema.items() if key not in ("default", "pattern")}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    return inner


def crd(name: str) -> Any:
    (found,) = YAML(typ="safe").load_all(SCHEMAS / f"ray.io_{name}.yaml")
    version = next(one for one in found["spec"]["versions"] if one["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


@foreign
@pytest.mark.parametrize(("file", "name"), [("kuberay-cluster.yaml", "rayclusters"), ("kuberay-job.yaml", "rayjobs")])
def test_kubernetes_would_take_every_field(file: str, name: str) -> None:
    (manifest,) = [one for one in documents(file) if one["apiVersion"] == "ray.io/v1"]
    jsonschema.validate(manifest, crd(name))
    manifest["spec"]["enableInTreeAutoscalling"] = True
    with pytest.raises(jsonschema.ValidationError, match="enableInTreeAutoscalling"):
        jsonschema.validate(manifest, crd(name))


@foreign
def test_compose_would_take_every_field() -> None:
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    (compose,) = documents("compose.yaml")
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(compose)
    compose["services"]["vitpipe"]["gpu"] = 8
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(compose)


def test_kubernetes_gives_what_ranks_on_gpus_need() -> None:
    (group,) = CLUSTER["spec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["nodeSelector"] and pod["imagePullSecrets"]
    assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    wanted, most = container["resources"]["requests"], container["resources"]["limits"]
    for name in ("nvidia.com/gpu", "vpc.amazonaws.com/efa", "hugepages-2Mi", "memory"):
        assert wanted[name] == most[name], f"Kubernetes refuses extended resources whose limit differs: {name}"
    scratch = next(one for one in pod["volumes"] if one["name"] == "scratch")
    assert scratch["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"]
    assert group["maxReplicas"] >= 4 and group["minReplicas"] <= group["replicas"]


def test_workers_grow_and_only_the_autoscaler_may_ask_for_pods() -> None:
    spec = CLUSTER["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    pod = spec["headGroupSpec"]["template"]["spec"]
    (token,) = [one["name"] for one in pod["volumes"] if "projected" in one]
    assert token in {one["name"] for one in spec["autoscalerOptions"]["volumeMounts"]}
    assert token not in {one["name"] for container in pod["containers"] for one in container["volumeMounts"]}
    scaler = spec["autoscalerOptions"]["securityContext"]
    assert scaler["readOnlyRootFilesystem"] and scaler["capabilities"] == {"drop": ["ALL"]}


def test_kueues_quota_holds_four_nodes_and_the_head() -> None:
    (group,) = kind("kueue-queue.yaml", "ClusterQueue")["spec"]["resourceGroups"]
    quota = {one["name"]: one["nominalQuota"] for flavor in group["flavors"] for one in flavor["resources"]}
    assert set(quota) == set(group["coveredResources"])
    (worker,) = CLUSTER["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    (head,) = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    for name, each in worker["resources"]["requests"].items():
        assert name in quota, f"{name} is in no quota: Kueue would never admit the cluster"
        assert _number(quota[name]) >= 4 * _number(each) + _number(head["resources"]["requests"].get(name, "0"))
    local = kind("kueue-queue.yaml", "LocalQueue")
    assert f"queue-name: {local['metadata']['name']}" in (DEPLOY / "kuberay-cluster.yaml").read_text()
    assert local["spec"]["clusterQueue"] == kind("kueue-queue.yaml", "ClusterQueue")["metadata"]["name"]


def _number(quantity: str) -> float:
    found = re.fullmatch(r"(\d+)(Gi|Ti|Mi|m)?", quantity)
    assert found, quantity
    return int(found[1]) * {None: 1, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 1e-3}[found[2]]


@pytest.mark.parametrize("name", ["aws-cluster.yaml", "gcp-cluster.yaml"])
def test_rays_launcher_takes_it(name: str) -> None:
    schema = Path(str(importlib.util.find_spec("ray").submodule_search_locations[0]))  # type: ignore[union-attr]
    validator = jsonschema.Draft7Validator(json.loads((schema / "autoscaler/ray-schema.json").read_text()))
    (config,) = documents(name)
    assert [error.message for error in validator.iter_errors(config)] == []
    assert list(validator.iter_errors({**config, "surprise": 1})), "a wrong field would be found"
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all(command.startswith("RAY_AUTH_MODE=token ray start") for command in starts)
    assert config["provider"]["use_internal_ips"] and "--dashboard-host=127.0.0.1" in starts[0]
    gpu = config["available_node_types"]["gpu"]
    assert gpu["max_workers"] == config["max_workers"] == 4 and "--gpus all" in gpu["docker"]["worker_run_options"]


def test_aws_machines_are_near_each_other_and_have_every_network_card() -> None:
    (config,) = documents("aws-cluster.yaml")
    node = config["available_node_types"]["gpu"]["node_config"]
    assert node["Placement"]["GroupName"] == "vitpipe"
    cards = node["NetworkInterfaces"]
    assert [card["NetworkCardIndex"] for card in cards] == list(range(32)), "a p5.48xlarge has 32"
    assert cards[0]["InterfaceType"] == "efa" and {card["InterfaceType"] for card in cards[1:]} == {"efa-only"}
    assert all(card["Groups"] and card["SubnetId"] for card in cards)
    assert "--cap-add IPC_LOCK" in config["available_node_types"]["gpu"]["docker"]["worker_run_options"]


def test_one_machine_has_its_gpus_and_no_open_port() -> None:
    (compose,) = documents("compose.yaml")
    service = compose["services"]["vitpipe"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "ports" not in service and service["read_only"] and service["cap_drop"] == ["ALL"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def steps(text: str) -> list[str]:
    """The commands that make the environment, in order, however the file spells them."""
    lines = [re.sub(r"^(RUN|&&)\s+", "", line.strip()) for line in text.splitlines()]
    return [line for line in lines if re.match(r"(pip install|python -m (venv|vitpipe))", line)]


def test_apptainers_image_is_made_by_the_same_steps_from_the_same_files() -> None:
    docker, apptainer = (DEPLOY / name for name in ("Dockerfile", "apptainer.def"))
    assert steps(docker.read_text()) == steps(apptainer.read_text()) and len(steps(docker.read_text())) == 4
    files = re.search(r"%files\n(.*?)\n\n", apptainer.read_text(), re.S)
    assert files
    copied = {line.split()[0] for line in files[1].splitlines()}
    built = (line.split()[1:-1] for line in docker.read_text().splitlines()
             if line.startswith("COPY") and "--from" not in line)  # fmt: skip
    assert copied == {source for sources in built for source in sources}
    assert all((ROOT / source).exists() for source in copied)


LOCK = SourceFileLoader("lock_hashes", str(ROOT / ".ci/lock_hashes"))


def lock_hashes() -> Any:
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(LOCK.name, LOCK))  # type: ignore[arg-type]
    LOCK.exec_module(module)
    return module


def locked() -> set[str]:
    return {line.split("==")[0] for line in (DEPLOY / "requirements.lock").read_text().splitlines() if "==" in line}


def test_the_image_has_what_the_project_needs_and_nothing_of_its_tests() -> None:
    lock = lock_hashes()
    names = {lock.canonical(name) for name in locked()}
    assert names == lock.wanted(), "run `make lock`"
    assert "setuptools" in names, "built without isolation"
    tests = (
        "pytest pytest-cov hypothesis mypy ruff jax jaxlib flax optax import-linter codespell boto3-stubs sphinx furo"
    )
    assert not names & {*tests.split()}
    asked = (ROOT / "pyproject.toml").read_text()
    assert {"torch", "ray", "deepspeed", "boto3", "timm", "h5py", "aiohttp"} <= names and "torch>=" in asked


def test_the_closure_follows_extras_and_markers(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\n[project]\n'
        'dependencies = ["ray[default]", "tqdm; python_version < \'3\'"]\n'
        '[project.optional-dependencies]\nbenchmarks = ["h5py"]\nparity = []\n'
    )
    found = lock_hashes().wanted(tmp_path)
    assert {"ray", "aiohttp", "h5py", "numpy", "setuptools"} <= found and not {"pytest", "tqdm"} & found
    (tmp_path / "constraints.txt").write_text("numpy==2\npytest==9\nRay==2\n")
    assert lock_hashes().pins(tmp_path) == ["numpy==2", "Ray==2"]


def test_every_pin_has_its_hash() -> None:
    text = (DEPLOY / "requirements.lock").read_text()
    assert len(re.findall(r"==\S+ \\\n    --hash=sha256:[0-9a-f]{64}\n", text)) == len(locked()) > 100
