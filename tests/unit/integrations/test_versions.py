"""The README says which versions of the frameworks are tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def locked(lock: str, package: str) -> str:
    """The version of a package in a lock."""
    text = (ROOT / "requirements" / lock).read_text()
    (version,) = re.findall(rf"^{package}==(\S+)", text, flags=re.MULTILINE)
    return version


@pytest.mark.parametrize(
    ("framework", "package"),
    [
        ("Lightning", "lightning"),
        ("Lightning", "pytorch-lightning"),
        ("Transformers", "transformers"),
        ("Gymnasium", "gymnasium"),
        ("Stable-Baselines3", "stable-baselines3"),
    ],
)
def test_the_readme_names_the_oldest_and_the_newest_versions_tested(
    framework: str, package: str
) -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    versions = f"{locked('oldest.txt', package)} and {locked('dev.txt', package)}"
    assert f"{framework} {versions}" in text
