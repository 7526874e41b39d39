"""The files in ``deploy/`` and ``examples/`` agree with the repository; they are not run here."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from daad_jax import config as config_lib

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def pins(*files):
    return dict(re.findall(r"^([\w.-]+)==(\S+)", "\n".join(f.read_text() for f in files), re.M))


def test_the_image_has_the_versions_that_the_tests_run_with():
    tested = pins(ROOT / "requirements.txt", ROOT / "requirements-dev.txt")
    assert pins(DEPLOY / "requirements.txt").items() <= tested.items()


def test_the_dockerfile_copies_what_exists_and_runs_the_command():
    text = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    assert 'ENTRYPOINT ["daad-jax", "serve"' in text
    assert re.search(r"^USER \d+$", text, re.MULTILINE)


def test_the_compose_file_builds_the_dockerfile_and_stays_on_loopback():
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["serve"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "--token_file=/run/secrets/token" in service["command"]


EXAMPLES = sorted((ROOT / "examples").iterdir())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_can_be_read_and_its_config_fields_exist(path):
    if path.suffix == ".yaml":
        assert yaml.safe_load(path.read_text())["kind"] == "JobSet"
    else:
        subprocess.run(["bash", "-n", path], check=True)
    named = re.findall(r"--config\.([\w.]+)=", path.read_text())
    assert named
    assert set(named) <= set(config_lib.field_types())
