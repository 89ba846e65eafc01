"""What the server says of itself."""

from importlib.metadata import version
from typing import Final

SERVER_VERSION: Final = f"metrana {version('metrana')}"
