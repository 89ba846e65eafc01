"""The catalog's schema, version by version, under Alembic.

A new one: change `tables.py`, then, in this folder, `alembic -x url=sqlite:///CATALOG revision
--autogenerate --rev-id 0004 -m "what it does"`, read what it wrote, and move HEAD. Revisions never
import `tables.py`: they say what was true when they were written.
"""

from typing import Final

HEAD: Final = "0003"
