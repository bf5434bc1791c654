"""deploy/Dockerfile and deploy/kubernetes: valid by a schema of Kubernetes, and what they run and need is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from synfin.cli.live import given_options, live
from synfin.sidecar.config import LiveConfig

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
USER = 10001


def instructions():
    """The instructions of the Dockerfile: (name, rest), continued lines joined, comments left out."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def loaded(path):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (it comes with kubernetes-validate)")
    return yaml.safe_load(path.read_text())


def synfin_container(manifest):
    spec = manifest["spec"]["template"]["spec"]
    (found,) = [c for c in [*spec["containers"], *spec["initContainers"]] if c["name"] == "synfin"]
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_schema_of_kubernetes(path):
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed (PyPI)")
    manifest = loaded(path)
    validate.validate(manifest, "1.29.1", strict=True)
    validate.validate(manifest, validate.latest_version(), strict=True)
    synfin_container(manifest)["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(validate.ValidationError):
        validate.validate(manifest, validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_a_manifest_runs_is_a_run(path):
    container = synfin_container(loaded(path))
    command, interface, *options = container["args"]
    addresses = {f"$({each['name']})": "192.0.2.1" for each in container["env"]}
    options = [re.sub(r"\$\(\w+\)", lambda m: addresses[m[0]], option) for option in options]
    with live.make_context("live", [interface, *options]) as context:
        config = LiveConfig.of(given_options({k: v for k, v in context.params.items() if k not in ("interfaces", "file")}))
    assert command == "live" and config.metrics == ("192.0.2.1", 9108)
    assert config.filter == f"not port {config.metrics[1]}"
    assert config.out in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert all(probe["httpGet"]["port"] == 9108 for name, probe in container.items() if name.endswith("Probe"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_a_manifest_allows(path):
    allowed = synfin_container(loaded(path))["securityContext"]
    assert allowed["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    assert allowed["runAsNonRoot"] and allowed["runAsUser"] == USER and allowed["readOnlyRootFilesystem"]
    assert allowed["allowPrivilegeEscalation"]  # else the capability of the file would not count


def test_the_image_is_not_roots_and_has_what_it_copies():
    made = instructions()
    assert [rest for name, rest in made if name == "USER"] == [f"{USER}:{USER}"]
    # Nothing is done as root after that, and two stages: no compiler in the last.
    last = max(at for at, (name, _) in enumerate(made) if name == "FROM")
    assert not [rest for name, rest in made[last:] if name == "RUN" and "gcc" in rest]
    assert [name for name, _ in made[[name for name, _ in made].index("USER") :]].count("RUN") == 0
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for name, rest in made if name == "COPY" and "--from" not in rest for source in rest.split()[:-1]}
    assert copied == kept and all((ROOT / source).exists() for source in copied)


@pytest.mark.slow
def test_docker_builds_it():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        pytest.skip("there is no docker whose daemon runs")
    command = [docker, "build", "--quiet", "-f", "deploy/Dockerfile", "."]
    image = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    said = subprocess.run([docker, "run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_RAW", image, "live", "lo", "--seconds", "1"], capture_output=True, text=True, check=False)  # fmt: skip
    assert said.returncode == 0, said.stderr
