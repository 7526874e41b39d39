"""The files in ``deploy/`` agree with the repository; they are not built here."""

import re
from pathlib import Path

import yaml

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
