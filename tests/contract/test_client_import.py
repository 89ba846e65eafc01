"""What `import metrana` does: next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

# What extras bring, what frameworks are, and what would be felt at import.
HEAVY = (
    "alembic av chdb fastapi google.protobuf grpc gymnasium httpx jax lightning pandas "
    "polars pyarrow rich sqlalchemy stable_baselines3 tensorflow torch transformers uvicorn "
    "asyncio multiprocessing numpy subprocess argparse decimal hashlib pathlib urllib.parse"
)

_SCRIPT = """
import json, os, sys, threading
environment, threads = dict(os.environ), threading.active_count()
import metrana
assert dict(os.environ) == environment
assert threading.active_count() == threads
assert sys.excepthook is sys.__excepthook__
print(json.dumps(sorted(sys.modules)))
"""


def _modules(script: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(json.loads(done.stdout))


def test_import_pulls_in_nothing_heavy() -> None:
    loaded = _modules(_SCRIPT)
    assert loaded & set(HEAVY.split()) == set()
    # Of the package itself only the client's modules.
    ours = {name.split(".")[1] for name in loaded if name.startswith("metrana.")}
    assert ours & {"server", "query", "cli", "integrations", "rendering"} == set()


def test_logging_numbers_needs_no_numpy() -> None:
    loaded = _modules(
        """
import json, sys, tempfile
import metrana
with tempfile.TemporaryDirectory() as folder, metrana.init(mode="disabled", data_dir=folder):
    metrana.log("loss", 0.5, step=3, labels={"a": "b"})
    metrana.log({"loss": [1, 2.5], "n": True})
    metrana.log_rl_environment_step("reward", [1, 2], 1, env_id=["a", "b"], episode=[0, 0])
print(json.dumps(sorted(sys.modules)))
"""
    )
    assert "numpy" not in loaded
