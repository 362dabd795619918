"""`make manifests-check`: the manifests against the schemas of Kubernetes and of KEDA, and the compose files
against that of the compose specification."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.keda import v1alpha1 as keda

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
GUIDE = ROOT / "docs" / "how-to" / "run-on-kubernetes.md"
COMPOSE = (ROOT / "docker-compose.yml", Path(__file__).with_name("compose.yml"))
#: The oldest and the newest that are meant.
VERSIONS = ("1.28", "1.37")


def main() -> int:
    """Print each problem, and what was not checked; 0: there is no problem."""
    documents = [(path.relative_to(FOLDER), one) for path in manifests() for one in read(path)]
    builder = _builder()
    for name in ("base", "migrate", "keda"):
        documents += [(Path(name), one) for one in _built(builder, FOLDER / name)]
    example = _example(builder)
    documents += [(Path("the guide's example"), one) for one in example]
    crds = _crds()
    problems = [problem for where, one in documents for problem in _problems(where, one, crds)]
    problems += _wrong_in_example(example)
    for problem in problems:
        print(problem)
    print(f"{len(documents)} objects, Kubernetes {' and '.join(VERSIONS)}: {len(problems)} problems")
    if builder is None:
        print("not checked: what kustomize makes of them (neither kustomize nor kubectl is here)")
    return bool(problems) | _check_compose()


def _check_compose() -> bool:
    """Whether a compose file is not as the specification says, which is then printed."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        *COMPOSE,
    ]
    return bool(subprocess.run(command, check=False).returncode)


def manifests() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")


def read(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]


def _problems(where: Path, one: dict[str, Any], crds: dict[str, Any]) -> Iterator[str]:
    name = f"{where}: {one['kind']} {one['metadata']['name']}"
    if "keda.sh/" in one["apiVersion"]:
        for error in jsonschema.Draft202012Validator(crds[one["kind"]]).iter_errors(one):
            yield f"{name}: {error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {version}: {'.'.join(map(str, error.path))}: {error.message}"


def _crds() -> dict[str, Any]:
    """Kind → schema; unknown fields are errors, as they are for `kubectl apply`. From a package, or from the
    definitions of a KEDA: `KEDA_CRDS` is the folder config/crd/bases of github.com/kedacore/keda."""
    models = (keda.ScaledObject, keda.TriggerAuthentication)
    found = {model.__name__: _closed(model.model_json_schema(by_alias=True), at_top=True) for model in models}
    folder = os.environ.get("KEDA_CRDS")
    for path in Path(folder).glob("*.yaml") if folder else ():
        spec = yaml.safe_load(path.read_text("utf-8"))["spec"]
        found[spec["names"]["kind"]] = _closed(spec["versions"][0]["schema"]["openAPIV3Schema"], at_top=True)
    return found


def _closed(schema: Any, *, at_top: bool = False) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not at_top:
        # Of metadata the definition says only that it is an object.
        closed.setdefault("additionalProperties", False)
    return closed


def _builder() -> list[str] | None:
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def _built(builder: list[str] | None, folder: Path) -> list[dict[str, Any]]:
    if builder is None:
        return []
    made = subprocess.run([*builder, str(folder)], check=True, capture_output=True, text=True).stdout
    return [one for one in yaml.safe_load_all(made) if one]


def _example(builder: list[str] | None) -> list[dict[str, Any]]:
    """What the folder that docs/how-to/run-on-kubernetes.md tells to make becomes."""
    with TemporaryDirectory() as name:
        shutil.copytree(FOLDER, Path(name) / "deploy" / "kubernetes")
        folder = Path(name) / "shop"
        folder.mkdir()
        shutil.copy(FOLDER / "base" / "notifier.toml", folder)
        blocks = re.findall(r"^ *```yaml\n *# (\S+)\n(.*?)^ *```", GUIDE.read_text("utf-8"), re.M | re.S)
        for file, text in blocks:
            (folder / file).write_text(dedent(text), "utf-8")
        return _built(builder, folder)


def _wrong_in_example(built: list[dict[str, Any]]) -> Iterator[str]:
    """Programs without its own image, or without the settings that are built with them."""
    maps = {one["metadata"]["name"]: one["data"] for one in built if one["kind"] == "ConfigMap"}
    for one in built:
        if one["kind"] != "Deployment":
            continue
        (container,) = one["spec"]["template"]["spec"]["containers"]
        if not container["image"].startswith("registry.example.com/shop/notifier:"):
            yield f"the guide's example: {one['metadata']['name']}: the image is {container['image']}"
        settings = maps.get(container["envFrom"][0]["configMapRef"]["name"], {})
        if "NOTIFIER_BOUNCE_ADDRESS" not in settings:
            yield f"the guide's example: {one['metadata']['name']}: NOTIFIER_BOUNCE_ADDRESS is not set"
    if built and ("Deployment", "notifier-bounces") not in {
        (one["kind"], one["metadata"]["name"]) for one in built
    }:
        yield "the guide's example: no program takes bounces"


if __name__ == "__main__":
    sys.exit(main())
