"""Inserts without end and says what is acknowledged, until it is killed.

Arguments: the store's URL, the first seq, the rows of an insert.
"""

import itertools
import sys

import numpy as np

from metrana.server.points import SCHEMA, open_points


def main() -> None:
    url, first_seq, row_count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rows = {name: np.zeros(row_count, dtype) for name, dtype in SCHEMA.items()}
    for name in ("run_no", "writer_no"):
        rows[name][:] = 1
    rows["metric_no"][:] = np.arange(row_count) % 20
    rows["rl_step"][:] = rows["episode"][:] = -1
    with open_points(url) as store:
        for seq in itertools.count(first_seq):
            rows["seq"][:] = seq
            rows["step"][:] = seq * row_count + np.arange(row_count)
            store.insert(rows)
            sys.stdout.write(f"{seq}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
