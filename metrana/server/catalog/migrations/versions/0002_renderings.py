"""Renderings, and how far the pieces of each writer's are stored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Sorted by its bytes on every engine.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "renderings",
        sa.Column("rendering_id", sa.String(length=32), nullable=False),
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("writer_no", sa.Integer(), nullable=False),
        sa.Column("env_id", _TEXT, nullable=False),
        sa.Column("episode", sa.BigInteger(), nullable=False),
        sa.Column("rl_step", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.BigInteger(), nullable=False),
        sa.Column("frame_count", sa.BigInteger(), nullable=True),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("fps", sa.Double(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_renderings_run_no"),
        sa.ForeignKeyConstraint(
            ["writer_no"], ["writers.writer_no"], name="fk_renderings_writer_no"
        ),
        sa.PrimaryKeyConstraint("rendering_id", name="pk_renderings"),
    )
    op.create_index(
        "ix_renderings_run_no_env_id_episode_part",
        "renderings",
        ["run_no", "env_id", "episode", "part"],
        unique=False,
    )
    op.create_table(
        "rendering_progress",
        sa.Column("writer_no", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["writer_no"], ["writers.writer_no"], name="fk_rendering_progress_writer_no"
        ),
        sa.PrimaryKeyConstraint("writer_no", name="pk_rendering_progress"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("rendering_progress")
    op.drop_table("renderings")
