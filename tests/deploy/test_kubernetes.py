"""The Kubernetes manifests: what they name exists, and their parts agree with each other and the servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from spincycle_server.spec_files import load_specs
from tests.deploy.deployed import DEPLOY, Deployed, image_environment, image_user
from tests.deploy.stopping import longest_stop

BASE = DEPLOY / "kubernetes" / "base"
SECRETS = {
    "spincycle-cluster": {"key"},
    "spincycle-database": {"url"},
    "spincycle-database-migrate": {"url"},
    "spincycle-database-prune": {"url"},
    "spincycle-job-runner-tls": {"tls.crt", "tls.key", "ca.crt"},
    "spincycle-request-manager-tls": {"tls.crt", "tls.key", "ca.crt"},
}
"""The Secrets that README.md tells to create, with their keys."""


def documents(directory: Path) -> Iterator[dict[str, Any]]:
    """Yields all objects of a directory."""
    for path in sorted(directory.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


OBJECTS = list(documents(BASE))
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
MAPS = {
    generated["name"]: {Path(file).name: BASE / file for file in generated["files"]}
    for generated in KUSTOMIZATION["configMapGenerator"]
}


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [found for found in OBJECTS if found["kind"] in kinds]


def template_of(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the template of the pods of an object."""
    spec = found["spec"]
    template: dict[str, Any] = (
        spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    )
    return template


class Pod:
    """The pods of a Deployment, StatefulSet, Job or CronJob. Each has one container."""

    def __init__(self, owner: dict[str, Any]) -> None:
        self.template = template_of(owner)
        self.spec = self.template["spec"]
        (self.container,) = self.spec["containers"]
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        self.mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in self.container["volumeMounts"]}

    @property
    def labels(self) -> dict[str, str]:
        """The labels, also those of the kustomization."""
        (common,) = KUSTOMIZATION["labels"]
        assert common["includeTemplates"]
        return {**common["pairs"], **self.template["metadata"]["labels"]}

    @property
    def paths(self) -> set[str]:
        """The paths of all mounted files."""
        found = set()
        for path, volume in self.mounts.items():
            keys = set(MAPS[volume["configMap"]["name"]]) if "configMap" in volume else set()
            keys |= SECRETS[volume["secret"]["secretName"]] if "secret" in volume else set()
            found |= {f"{path}/{key}" for key in keys}
        return found

    @property
    def deployed(self) -> Deployed:
        """What the container runs."""
        own = {
            variable["name"]: variable["value"]
            for variable in self.container.get("env", [])
            if "value" in variable
        }
        files = {
            f"{path}/{key}": file
            for path, volume in self.mounts.items()
            if "configMap" in volume
            for key, file in MAPS[volume["configMap"]["name"]].items()
        }
        return Deployed(self.container["name"], self.container["args"], {**image_environment(), **own}, files)


PODS = {
    found["metadata"]["name"]: Pod(found) for found in of_kind("Deployment", "StatefulSet", "Job", "CronJob")
}
SERVER_PODS = [name for name, pod in PODS.items() if pod.deployed.is_server]
each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
each_server = pytest.mark.parametrize("pod", [PODS[name] for name in SERVER_PODS], ids=SERVER_PODS)


@each_pod
def test_the_command_and_its_options_exist(pod: Pod) -> None:
    pod.deployed.check_words()


@each_pod
def test_each_file_that_an_option_names_is_mounted(pod: Pod) -> None:
    config = pod.deployed.config()
    assert config.database_url_file in {*pod.paths, ""}
    if pod.deployed.is_server:
        assert pod.deployed.named_files() <= pod.paths
        assert pod.deployed.command == "job-runner" or config.specs_dir in pod.mounts


@each_pod
def test_pods_are_confined(pod: Pod) -> None:
    # The level "restricted" and the schema are checked by `make kit`.
    assert pod.container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod.spec["securityContext"]["runAsUser"] == image_user()
    assert pod.spec["automountServiceAccountToken"] is False
    assert "memory" in pod.container["resources"]["limits"]
    for volume in pod.mounts.values():
        assert volume.get("secret", {}).get("defaultMode", 0o440) == 0o440


@each_server
def test_a_server_has_the_time_that_it_may_need_to_stop(pod: Pod) -> None:
    pause = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    longest = longest_stop(pod.deployed.command, pod.deployed.config())
    assert pod.spec["terminationGracePeriodSeconds"] > pause + longest


@each_server
def test_ports_are_those_of_the_server(pod: Pod) -> None:
    config = pod.deployed.config()
    assert config.server_metrics is not None
    http = pod.deployed.http_port()
    ports = {"https": http, "grpc": http + 10, "metrics": config.server_metrics.port}
    assert {port["name"]: port["containerPort"] for port in pod.container["ports"]} == ports
    services = [found for found in of_kind("Service") if matches(found["spec"]["selector"], pod)]
    for service in services:
        assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == ports
        assert all(port["targetPort"] == port["name"] for port in service["spec"]["ports"])
    assert len(services) == 1


@each_server
def test_probes_ask_pages_that_exist(pod: Pod) -> None:
    from spincycle_server.gateway.server_pages import HEALTHZ, READYZ

    probes = {"startupProbe": HEALTHZ, "livenessProbe": HEALTHZ, "readinessProbe": READYZ}
    for probe, path in probes.items():
        assert pod.container[probe]["httpGet"] == {"path": path, "port": "metrics"}


def matches(labels: dict[str, str], pod: Pod) -> bool:
    return labels.items() <= pod.labels.items()


def test_each_selector_matches_pods() -> None:
    policies = [*OBJECTS, *documents(DEPLOY / "kubernetes" / "components" / "monitoring")]
    for found in policies:
        spec = found.get("spec", {})
        selectors = [spec.get("podSelector"), spec.get("selector")]
        peers = [peer for rule in spec.get("ingress", []) for peer in rule.get("from", [])]
        peers += [peer for rule in spec.get("egress", []) for peer in rule.get("to", [])]
        selectors += [peer.get("podSelector") for peer in peers]
        for selector in filter(None, selectors):
            expressions = selector.get("matchExpressions", [])
            names = [value for expression in expressions for value in expression["values"]]
            wanted = [{"app.kubernetes.io/name": name} for name in names]
            plain = {key: value for key, value in selector.items() if key.startswith("app.")}
            for labels in wanted or [selector.get("matchLabels", plain)]:
                assert any(matches(labels, pod) for pod in PODS.values()), (found["metadata"], labels)


def test_runners_find_request_managers_and_have_names_of_their_own() -> None:
    runner = PODS["spincycle-job-runner"].deployed
    manager = PODS["spincycle-request-manager"].deployed
    names = {found["metadata"]["name"]: found["spec"] for found in of_kind("Service")}
    assert runner.config().rm_client_url == (f"https://spincycle-request-manager:{manager.http_port()}",)
    assert "spincycle-request-manager" in names
    (owner,) = of_kind("StatefulSet")
    assert names[owner["spec"]["serviceName"]]["clusterIP"] == "None"
    advertised = f"$(POD_NAME).{owner['spec']['serviceName']}.$(POD_NAMESPACE).svc"
    assert runner.environment["SPINCYCLE_JOB_RUNNER_ADVERTISE"] == advertised
    variables = {variable["name"] for variable in PODS["spincycle-job-runner"].container["env"]}
    assert {"POD_NAME", "POD_NAMESPACE"} <= variables


def test_no_secret_is_committed_and_readme_creates_each_that_is_used() -> None:
    assert of_kind("Secret") == []
    used = {
        volume["secret"]["secretName"]
        for pod in PODS.values()
        for volume in pod.mounts.values()
        if "secret" in volume
    }
    assert used == set(SECRETS)
    readme = (DEPLOY / "kubernetes" / "README.md").read_text()
    for name, keys in SECRETS.items():
        (command,) = [
            line
            for line in readme.splitlines()
            if line.startswith(f"kubectl -n spincycle create secret generic {name} ")
        ]
        assert keys == {
            word.partition("=")[2].partition("=")[0]
            for word in command.split()
            if word.startswith("--from-file=")
        }


def test_the_specs_of_the_config_map_have_no_mistakes() -> None:
    assert load_specs(BASE / "specs", lambda _: True).job_types
