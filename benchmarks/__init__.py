"""What metrana costs beside its goals and its peers: `python -m benchmarks`, one table out.

`goals` lists the rows of the table. Each row names a work of `works`, which a fresh process does
with one of `loggers`: with metrana in this environment, with each peer in an environment of its
own. `loggers` and `timing` therefore import nothing but NumPy and what they measure.

What the frameworks' adapters cost a training is a table of its own, `benchmarks.trainings`, of the
trainings in `fits`. There the peers' environment finds the frameworks in this one.
"""
