"""What `make build` notices."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL = "--reinstall-package metrana"


@pytest.mark.parametrize("module", [None, "_native.abi3.so"])
def test_build_is_due_if_the_native_module_is_missing(tmp_path: Path, module: str | None) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for source in ("metrana/_native.pyi", "Cargo.toml", "Cargo.lock", "pyproject.toml"):
        (tmp_path / source).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / source, tmp_path / source)
    for folder in ("native", "proto", ".venv/stamps"):
        (tmp_path / folder).mkdir(parents=True)
    if module is not None:
        (tmp_path / "metrana" / module).touch()
    stamps = tmp_path / ".venv" / "stamps"
    for stamp in ("uv", "demo", "dev", "build"):
        (stamps / stamp).touch()
    (tmp_path / "requirements").mkdir()
    for lock in ("uv", "demo", "dev", "torch-cpu", "torch-registry"):
        path = tmp_path / "requirements" / f"{lock}.txt"
        path.touch()
        os.utime(path, (0, 0))
    planned = subprocess.run(
        ["make", "--dry-run", "build"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (INSTALL in planned.stdout) == (module is None)
