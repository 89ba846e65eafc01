"""The README's section and the example do what they say."""

from __future__ import annotations

from pathlib import Path

from tests.contract.test_readme import shown
from tests.processes import Machine

_ROOT = Path(__file__).parents[3]

_EXAMPLE = """
import sys
import lightning_classifier

sys.argv[1:] = ["--epochs", "2"]
lightning_classifier.main()
"""


def test_what_is_shown_trains_and_reads_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", PYTHONPATH=f"{_ROOT}:{_ROOT / 'examples'}")
    machine.timeout_s = 100
    done = machine.file(shown("python", "Lightning") + _EXAMPLE)
    rate, checkpoint, accuracy = done.stdout.splitlines()[-3:]
    assert rate.startswith("learning rate 0.01")
    assert (machine.folder / checkpoint).is_file()
    assert 0.0 < float(accuracy.rpartition(" ")[2]) <= 1.0
    with machine.client() as client, client.hold():
        (shown_run,) = client.runs("quickstart").to_dict("records")
        assert client.points(run_id=shown_run["run_id"], metric_name="loss")["step"].tolist() == [
            49
        ]
        found = client.series("spirals", project_name="lightning")
    axes = found[found["metric_name"] == "loss_step"]["labels"].tolist()
    assert axes == [{"axis": "eval_batch", "evaluation": "true"}]
