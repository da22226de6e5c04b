"""What `make setup` installs: pinned, with hashes, as pyproject.toml asks for it, and checked against advisories."""

import json
import os
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OWN = canonicalize_name(PYPROJECT["name"])


def locked() -> list[tuple[Requirement, list[str]]]:
    """Each requirement of the lock, and its hashes."""
    entries = LOCK.read_text("utf-8").replace("\\\n", "").splitlines()
    parts = [entry.split(" --hash=") for entry in entries]
    return [(Requirement(requirement), [one.strip() for one in hashes]) for requirement, *hashes in parts]


def test_everything_is_pinned_with_hashes_and_without_a_place_to_get_it_from():
    for requirement, hashes in locked():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), requirement
    assert "://" not in LOCK.read_text("utf-8")


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_has_what_the_project_asks_for_on_every_python(python):
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    versions = {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement, _ in locked()
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }
    extras = PYPROJECT["optional-dependencies"]
    asked = [Requirement(one) for one in [*PYPROJECT["dependencies"], *extras["dev"]]]
    while own := [one for one in asked if canonicalize_name(one.name) == OWN]:
        asked = [one for one in asked if one not in own]
        asked += [Requirement(one) for each in own for extra in each.extras for one in extras[extra]]
    for requirement in asked:
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_set_up_installs_nothing_without_a_hash():
    commands = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.replace("\\\n", "")
    installs = [line for line in commands.splitlines() if "pip install" in line]
    assert len(installs) == 3
    for line in installs:
        own = "--no-deps --no-build-isolation --editable ." in line
        assert own or "--require-hashes" in line, line


def test_a_package_with_another_hash_is_not_installed(tmp_path):
    """With the Makefile's command for uv, on a wheel of that name."""
    wheel = tmp_path / "uv-9-py3-none-any.whl"
    wheel.write_bytes(b"another one")
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"tzdata==1 \\\n    --hash=sha256:{'1' * 64}\nuv==9 \\\n    --hash=sha256:{'0' * 64}\nzipp==1\n")
    command = re.search(r"\tsed .*?/dev/stdin", (ROOT / "Makefile").read_text("utf-8"), re.DOTALL)
    assert command
    line = command[0].replace("\\\n", "").replace("$$", "$").replace("$(BIN)/python", "$PYTHON")
    offline = f"{line} --no-index --find-links {tmp_path} --target {tmp_path / 'there'}"
    environment = {**os.environ, "PYTHON": sys.executable}
    answer = subprocess.run(offline, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert answer.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in answer.stderr
    assert not (tmp_path / "there").exists()


@pytest.fixture
def advisories():
    """(status and content of the answer) -> where a service that gives it is, and the questions that it was asked."""
    servers = []

    def serve(status: int, content: bytes) -> tuple[str, list[dict]]:
        asked: list[dict] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1/querybatch", asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def checked(url: str) -> tuple[int, str]:
    """Exit code of `make check-dependencies`, and what it says."""
    command = ["make", "--silent", "check-dependencies", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OSV_URL": url}, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_what_is_pinned_is_checked_on_every_system(advisories):
    number = len(locked())
    url, asked = advisories(200, json.dumps({"results": [{}] * number}).encode())
    assert checked(url) == (0, f"No known vulnerability in {number} pinned versions\n")
    pinned = [(requirement.name, str(requirement.specifier).removeprefix("==")) for requirement, _ in locked()]
    assert [(one["package"]["name"], one["version"]) for one in asked] == pinned
    assert {one["package"]["ecosystem"] for one in asked} == {"PyPI"}


def test_vulnerable_versions_are_listed_and_fail(advisories):
    results = [{} for _ in locked()]
    results[3] = {"vulns": [{"id": "GHSA-aaaa"}, {"id": "PYSEC-1"}]}
    code, said = checked(advisories(200, json.dumps({"results": results}).encode())[0])
    requirement, _ = locked()[3]
    version = str(requirement.specifier).removeprefix("==")
    base = "https://osv.dev/vulnerability"
    assert code != 0
    assert said.startswith(f"{requirement.name} {version}: {base}/GHSA-aaaa, {base}/PYSEC-1\nerror: ")


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (404, b""),
        (403, b"<html>"),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"results": [{}]}'),
        (200, b'{"results": 7}'),
    ],
)
def test_where_the_advisories_cannot_be_read_it_is_said_in_a_line(advisories, status, content):
    code, said = checked(advisories(status, content)[0])
    assert code == 0
    assert said.startswith("Skipped: the advisories at http://127.0.0.1:")
    assert said.count("\n") == 1


def test_where_the_advisories_cannot_be_reached_it_is_said_in_a_line():
    code, said = checked("http://127.0.0.1:9/nothing")
    assert (code, said.count("\n")) == (0, 1)
    assert said.startswith("Skipped: ")
