"""The bill of materials and the notices of an environment, as an image's build writes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[3] / "deploy" / "docker"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_package_is_in_the_bill_of_materials_and_the_notices(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    venv.create(tools, with_pip=True)
    install = [tools / "bin" / "python", "-m", "pip", "install", "-q", "--require-hashes"]
    options = ["--only-binary", ":all:", "--no-deps", "-r", DOCKER / "notices.txt"]
    subprocess.run([*install, *options], check=True, timeout=300)
    made = tmp_path / "notices"
    command = ["sh", DOCKER / "write-notices.sh", tools, sys.prefix, made]
    subprocess.run(command, check=True, timeout=300)
    installed = {(_name(one.name), one.version) for one in distributions()}
    materials = json.loads((made / "sbom.cdx.json").read_text())
    assert materials["bomFormat"] == "CycloneDX"
    listed = {(_name(one["name"]), one["version"]) for one in materials["components"]}
    assert installed - listed == set()
    notices = (made / "THIRD-PARTY-NOTICES.txt").read_text()
    named = {_name(line) for line in notices.splitlines() if line}
    assert {name for name, _ in installed} - named == set()
    whole = _squeezed(notices)
    missing = {text[:200] for text in _license_texts() if _squeezed(text) not in whole}
    assert missing == set()


def _license_texts() -> Iterator[str]:
    """Yield the license texts that packages carry beside their metadata; some carry twenty."""
    for one in distributions():
        for file in one.files or []:
            if ".dist-info" in str(file) and re.match(r"(?i)licen[cs]e|copying|notice", file.name):
                yield file.locate().read_text(errors="replace")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()
