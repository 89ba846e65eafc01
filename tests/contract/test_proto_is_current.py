"""The generated code of the wire contract is what its source says now."""

from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
PACKAGE = Path("metrana/server/_proto")
GENERATED = ("ingestion_pb2.py", "ingestion_pb2.pyi", "ingestion_pb2_grpc.py")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code generated anew, as `make proto` does it."""
    out = tmp_path_factory.mktemp("proto")
    includes = [f"-I{PACKAGE}={ROOT / 'proto/metrana/v1'}"]
    outputs = [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *includes, *outputs, str(PACKAGE / "ingestion.proto")]) == 0
    return out / PACKAGE


@pytest.mark.parametrize("name", GENERATED)
def test_generated_code_is_current(fresh: Path, name: str) -> None:
    committed = (ROOT / PACKAGE / name).read_text(encoding="utf-8")
    assert committed == (fresh / name).read_text(encoding="utf-8"), "run `make proto`"


def test_no_generated_module_is_left_over() -> None:
    modules = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_file()}
    assert modules == {"__init__.py", *GENERATED}
