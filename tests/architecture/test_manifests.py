"""Every name in the manifests for Kubernetes, and in the units for systemd, is one of the code's.

What Kubernetes itself expects of them is checked by `make manifests-check`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from notifier.broker import topology
from notifier.callbacks.url_guard import PORTS
from notifier.cli.app import app
from notifier.config.callbacks import references
from notifier.config.database_pools import most_connections
from notifier.config.settings import Settings, load_settings
from notifier.config.structure import load_structure
from notifier.domain.statuses import Channel, Lane
from notifier.security.encryption import new_key

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE = FOLDER / "base"
COMPONENT = "app.kubernetes.io/component"


def _objects(folder: Path = FOLDER) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            # All processes of a run read them while they collect: libyaml's loader is ten times as fast.
            yield from yaml.load_all(path.read_text("utf-8"), yaml.CSafeLoader)


def _of(kind: str) -> list[dict[str, Any]]:
    return [one for one in _objects() if one["kind"] == kind]


def _name(one: dict[str, Any]) -> str:
    return str(one["metadata"]["name"]).removeprefix("notifier-")


#: Program → its pod.
PODS = {_name(one): one["spec"]["template"]["spec"] for one in [*_of("Deployment"), *_of("Job")]}
PODS |= {_name(one): one["spec"]["jobTemplate"]["spec"]["template"]["spec"] for one in _of("CronJob")}
#: What the owner of the tables does, and then ends.
OWNERS = {"migrate", "partitions", "retention"}
LASTING = {"intake", "api", "worker-urgent", "worker", "callbacks", "bounces", "beat"}
#: Program → the container that runs it. What grants the rights comes after the upgrade, with psql.
CONTAINERS = {name: (pod.get("initContainers") or pod["containers"])[0] for name, pod in PODS.items()}
SETTINGS = dict(
    line.split("=", 1) for line in (BASE / "settings.env").read_text("utf-8").splitlines() if line[:1] not in "#"
)
NAMES = {f"NOTIFIER_{name.upper()}" for name, field in Settings.model_fields.items() if not field.exclude}


def _check_command(arguments: list[str]) -> None:
    """It is one of the command line's, with options that it has."""
    command: Any = get_command(app)
    rest = list(arguments)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert len(rest) < len(arguments), arguments
    assert {option for option in rest if option.startswith("--")} <= known, arguments


def _lanes(name: str) -> list[Lane]:
    arguments = CONTAINERS[name]["args"]
    return [Lane(lane) for lane in arguments[arguments.index("--lanes") + 1].split(",")]


def test_every_program_is_a_command_and_every_lane_has_a_worker() -> None:
    for container in CONTAINERS.values():
        _check_command(container["args"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            command = container.get(probe, {}).get("exec", {}).get("command")
            if command:
                _check_command(command[1:])
    assert sorted([*_lanes("worker-urgent"), *_lanes("worker")]) == sorted(Lane)
    assert set(PODS) == {*LASTING, "doctor", *OWNERS}


def test_every_variable_and_every_secret_is_read() -> None:
    structure = (BASE / "notifier.toml").read_text("utf-8")
    load_structure(BASE / "notifier.toml")
    secrets = {secret["metadata"]["name"]: set(secret.get("stringData", {})) for secret in _of("Secret")}
    own = {one["name"] for container in CONTAINERS.values() for one in container.get("env", ())}
    assert set(SETTINGS) | own <= NAMES | {"NOTIFIER_SECRETS_DIR"}
    assert set().union(*secrets.values()) <= NAMES | references(structure)
    assert references(structure) <= set().union(*secrets.values())
    mounted = {source["secret"]["name"] for pod in PODS.values() for source in _sources(pod)}
    assert mounted == set(secrets)


def _sources(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return next(volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "secrets")


@pytest.mark.parametrize("name", sorted(PODS))
def test_each_program_can_read_its_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the secrets that it mounts, and no other."""
    mounted = {source["secret"]["name"] for source in _sources(PODS[name])}
    for secret in _of("Secret"):
        if secret["metadata"]["name"] in mounted:
            for key, value in secret["stringData"].items():
                (tmp_path / key).write_text(new_key("2026-11-30") if key == "NOTIFIER_ENCRYPTION_KEYS" else value)
    for variable in NAMES & set(os.environ):
        monkeypatch.delenv(variable)
    variables = dict(SETTINGS) if "envFrom" in CONTAINERS[name] else {}
    variables |= {one["name"]: one["value"] for one in CONTAINERS[name].get("env", ())}
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("NOTIFIER_CONFIG", str(BASE / "notifier.toml"))
    settings = load_settings(use_running=False)
    assert (settings.database_url is None) == (name == "beat")
    assert (settings.broker_url is None) == (name in {"bounces", *OWNERS})


def test_a_program_mounts_no_secret_that_it_does_not_need() -> None:
    secrets = {name: {source["secret"]["name"] for source in _sources(pod)} for name, pod in PODS.items()}
    assert all(secrets[name] == {"notifier-owner"} for name in OWNERS)
    assert secrets["beat"] == {"notifier-broker"}
    assert {name for name, its in secrets.items() if "notifier-owner" in its} == OWNERS
    assert {name for name, its in secrets.items() if "notifier-providers" in its} == {
        "api",
        "worker",
        "worker-urgent",
        "doctor",
    }
    assert {name for name, its in secrets.items() if "notifier-callbacks" in its} == {"callbacks", "doctor"}
    assert secrets["doctor"] == set().union(*secrets.values()) - {"notifier-owner"}


def test_ports_are_those_that_programs_listen_on() -> None:
    ports = {
        name: {port["name"]: port["containerPort"] for port in one.get("ports", ())}
        for name, one in CONTAINERS.items()
    }
    environment = {one["name"]: one["value"] for one in CONTAINERS["api"]["env"]}
    assert ports.pop("api") == {"http": int(environment["NOTIFIER_API_PORT"])}
    assert ports["bounces"].pop("lmtp") == int(CONTAINERS["bounces"]["args"][-1].rpartition(":")[2])
    assert not any(ports.pop(name) for name in {"doctor", *OWNERS})
    assert all(one == {"metrics": int(SETTINGS["NOTIFIER_METRICS_PORT"])} for one in ports.values())


def test_every_pod_is_closed_and_has_time_to_end() -> None:
    for pod in PODS.values():
        outer = pod["securityContext"]
        assert outer["runAsNonRoot"] is True
        assert min(outer["runAsUser"], outer["runAsGroup"]) > 0
        assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert pod["automountServiceAccountToken"] is False
        # A program ends itself after its grace; only then it may be killed.
        assert pod["terminationGracePeriodSeconds"] >= float(SETTINGS["NOTIFIER_GRACE_SECONDS"]) + 10


def test_only_readiness_asks_for_the_database() -> None:
    for name in set(CONTAINERS) - OWNERS - {"doctor"}:
        for probe in ("startupProbe", "livenessProbe"):
            assert CONTAINERS[name][probe].get("httpGet", {}).get("path") in (None, "/healthz")
    assert CONTAINERS["api"]["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_guide_says_how_many_connections_they_need() -> None:
    each = {**most_connections(Settings()), "beat": 0}
    each["worker-urgent"] = each["worker"]
    counts = {_name(one): one["spec"]["replicas"] for one in _of("Deployment")}
    most = sum(each[name] * count for name, count in counts.items())
    # One pod more of each.
    during = most + sum(each[name] for name in counts)
    guide = (FOLDER.parents[1] / "docs" / "how-to" / "run-on-kubernetes.md").read_text("utf-8")
    assert f"They need {most} at most, and {during} during a rollout" in " ".join(guide.split())


def test_the_guide_says_how_many_connections_scaled_pods_need() -> None:
    each = {**most_connections(Settings()), "beat": 0}
    each["worker-urgent"] = each["worker"]
    counts = {_name(one): one["spec"]["replicas"] for one in _of("Deployment")}
    counts |= {_name(one): one["spec"]["maxReplicaCount"] for one in _of("ScaledObject")}
    most = sum(each[name] * count for name, count in counts.items())
    during = most + sum(each[name] for name in counts)
    guide = (FOLDER.parents[1] / "docs" / "how-to" / "run-on-kubernetes.md").read_text("utf-8")
    said = f"With the most pods that `scaling.yaml` allows, they need {most}, and {during} during a rollout"
    assert said in " ".join(guide.split())


def test_the_image_is_that_of_this_version() -> None:
    version = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for name in ("base", "migrate", "bounces"):
        (image,) = yaml.safe_load((FOLDER / name / "kustomization.yaml").read_text("utf-8"))["images"]
        assert image["newTag"] == version


def test_no_mail_returns_to_an_address_that_nobody_chose() -> None:
    texts = [path.read_text("utf-8") for path in FOLDER.rglob("*.*") if path.is_file()]
    assert not any(re.search(r"NOTIFIER_BOUNCE_ADDRESS\b.*@", text) for text in texts)


def _reached(component: str) -> set[int]:
    """The ports outside of the cluster that pods of this component may connect to."""
    ports = set()
    for policy in _of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        rules = selector.get("matchExpressions", ())
        chosen = selector["matchLabels"].get(COMPONENT, component) == component
        chosen &= all((component in rule["values"]) == (rule["operator"] == "In") for rule in rules)
        for rule in policy["spec"].get("egress", ()) if chosen else ():
            if {"0.0.0.0/0", "::/0"} <= {to.get("ipBlock", {}).get("cidr") for to in rule["to"]}:
                ports |= {port["port"] for port in rule["ports"]}
    return ports


def test_doctor_reaches_what_the_programs_reach() -> None:
    """In a pod of the API, it would call a relay that it cannot reach."""
    assert _reached("worker") == _reached("worker-urgent") == {25, 465, 587, 443}
    assert _reached("api") == _reached("callbacks") == set(PORTS)
    assert _reached("doctor") == _reached("worker")  # it calls no endpoint of callbacks
    assert _reached("intake") == _reached("migrate") == _reached("bounces") == set()


def test_policies_and_budgets_select_what_is_there() -> None:
    budgets = {one["spec"]["selector"]["matchLabels"][COMPONENT] for one in _of("PodDisruptionBudget")}
    assert budgets == set(PODS) - {"beat", "doctor"} - OWNERS
    for policy in _of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        named = [selector["matchLabels"].get(COMPONENT, "api")]
        named += [one for rule in selector.get("matchExpressions", ()) for one in rule["values"]]
        assert set(named) <= set(PODS), policy["metadata"]["name"]


def test_scaling_goes_by_the_queues_that_a_program_reads() -> None:
    queues = {
        _name(one): {trigger["metadata"]["queueName"] for trigger in one["spec"]["triggers"]}
        for one in _objects(FOLDER / "keda")
        if one["kind"] == "ScaledObject" and one["spec"]["triggers"][0]["type"] == "rabbitmq"
    }
    assert queues["intake"] == {topology.notify_queue_name(*pair) for pair in topology.pairs()}
    assert queues["callbacks"] == {topology.CALLBACKS}
    for name in ("worker", "worker-urgent"):
        lanes = _lanes(name)
        assert queues[name] == {
            topology.deliver_queue_name(channel, lane) for channel in Channel for lane in lanes
        }


def test_scaling_by_time_asks_for_a_metric_that_there_is() -> None:
    queries = [
        trigger["metadata"]["query"]
        for one in _of("ScaledObject")
        for trigger in one["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    reference = (FOLDER.parents[1] / "docs" / "reference" / "metrics.md").read_text("utf-8")
    assert queries
    for query in queries:
        for metric in re.findall(r"notifier_\w+", query):
            assert f"`{metric}`" in reference


UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


def _unit(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text("utf-8").splitlines() if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def test_every_unit_starts_a_command_with_secrets_that_it_reads() -> None:
    commands = {}
    for path in UNITS.glob("*.service"):
        pairs = _unit(path)
        arguments = dict(pairs)["ExecStart"].split()[1:]
        _check_command([argument.replace("${LANES}", "urgent") for argument in arguments])
        commands[path.stem.removeprefix("notifier-").rstrip("@")] = {
            value.partition(":")[0] for key, value in pairs if key == "LoadCredential"
        }
        variables = {value.partition("=")[0] for key, value in pairs if key == "Environment"}
        assert variables <= NAMES | {"LANES"}
    assert set().union(*commands.values()) <= NAMES
    assert set(commands) == set(PODS) - {"worker-urgent", "doctor"} - OWNERS | {"upgrade", "retention"}
    assert commands["beat"] == {"NOTIFIER_BROKER_URL"}


def test_units_have_ports_of_their_own_and_time_to_end() -> None:
    values = [value for path in UNITS.glob("*.service") for _, value in _unit(path)]
    ports = [value for value in values if value.startswith("NOTIFIER_METRICS_PORT=")]
    assert len(ports) == len(set(ports)) == 4
    common = dict(_unit(UNITS / "notifier-.service.d" / "common.conf"))
    assert float(common["TimeoutStopSec"]) >= Settings().grace_seconds + 10


def test_systemd_finds_nothing_in_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze: run `sudo apt-get install systemd`")
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*.service"):
        # The program has to be there.
        path.write_text(path.read_text("utf-8").replace("/opt/notifier/bin/notifier", shutil.which("true") or ""))
    (tmp_path / "notifier-worker@.service").rename(tmp_path / "notifier-worker@urgent.service")
    # Without those of this machine.
    names = [str(path) for path in sorted(tmp_path.glob("notifier*.*")) if path.is_file()]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        [program, "verify", "--man=no", *names], env=environment, capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "notifier" in line]
    assert (ours, done.returncode) == ([], 0)
