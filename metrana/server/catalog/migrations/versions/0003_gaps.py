"""Gaps in what is stored of a writer; until now there was thought to be none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "gaps",
        sa.Column("writer_no", sa.Integer(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["writer_no"], ["writers.writer_no"], name="fk_gaps_writer_no"),
        sa.PrimaryKeyConstraint("writer_no", "first_seq", name="pk_gaps"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("gaps")
