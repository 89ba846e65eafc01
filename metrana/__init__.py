"""metrana: an experiment logger for reinforcement learning and deep learning."""

from metrana._native import __version__

__all__ = ["__version__"]
