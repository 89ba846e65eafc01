"""The package and its native module are of one version."""

from importlib.metadata import version

import metrana


def test_version_is_that_of_the_installed_distribution() -> None:
    assert metrana.__version__ == version("metrana")
