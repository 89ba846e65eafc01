"""Alembic's entry: runs the migrations on the connection that `schema.py` passes in.

From the command line (`alembic -x url=sqlite:///catalog.db …`) it connects by itself.
"""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from metrana.server.catalog.engine import connect
from metrana.server.catalog.schema import VERSION_TABLE
from metrana.server.catalog.tables import ExactText, metadata


def _rendered(kind: str, item: object, _context: Any) -> str | Literal[False]:
    """How revisions spell our own type without importing it."""
    if kind == "type" and isinstance(item, ExactText):
        return "sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')"
    return False


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_item=_rendered,
        compare_type=True,
        compare_server_default=True,
    )
    # The caller's transaction, if there is one, is joined and left open.
    with context.begin_transaction():
        context.run_migrations()


_given = context.config.attributes.get("connection")
if _given is not None:
    _run(_given)
else:
    with connect(context.get_x_argument(as_dictionary=True)["url"]).begin() as _own:
        _run(_own)
