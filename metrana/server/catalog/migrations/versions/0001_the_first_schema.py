"""The first schema: workspaces to runs, writers, metrics, environments, attributes, tags."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Sorted by its bytes on every engine.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )
    op.create_table(
        "workspaces",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name="pk_workspaces"),
        sa.UniqueConstraint("name", name="uq_workspaces_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "projects",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name="fk_projects_workspace_id"
        ),
        sa.PrimaryKeyConstraint("project_id", name="pk_projects"),
        sa.UniqueConstraint("workspace_id", "name", name="uq_projects_workspace_id_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "envs",
        sa.Column("env_no", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("env_id", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name="fk_envs_project_id"),
        sa.PrimaryKeyConstraint("env_no", name="pk_envs"),
        sa.UniqueConstraint("project_id", "env_id", name="uq_envs_project_id_env_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "metrics",
        sa.Column("metric_no", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(length=32), nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("scale", sa.String(length=16), nullable=False),
        sa.Column("labels", _TEXT, nullable=False),
        sa.CheckConstraint(
            "scale IN ('ML_STEP', 'EPISODE', 'ENVIRONMENT_STEP')", name=op.f("ck_metrics_scale")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name="fk_metrics_project_id"
        ),
        sa.PrimaryKeyConstraint("metric_no", name="pk_metrics"),
        sa.UniqueConstraint("project_id", "identity", name="uq_metrics_project_id_identity"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_metrics_project_id_name", "metrics", ["project_id", "name"], unique=False)
    op.create_table(
        "runs",
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("requested_name", _TEXT, nullable=True),
        sa.Column("parent_run_id", sa.String(length=32), nullable=True),
        sa.Column("fork_step", sa.BigInteger(), nullable=True),
        sa.Column("orchestration_id", _TEXT, nullable=True),
        sa.Column("experiment_name", _TEXT, nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("purged_at", sa.BigInteger(), nullable=True),
        sa.Column("host", _TEXT, nullable=True),
        sa.Column("client_version", _TEXT, nullable=True),
        sa.Column("description", _TEXT, nullable=True),
        sa.Column("git_sha", _TEXT, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'failed', 'lost')", name=op.f("ck_runs_status")
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name="fk_runs_project_id"),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name="fk_runs_workspace_id"
        ),
        sa.PrimaryKeyConstraint("run_no", name="pk_runs"),
        sa.UniqueConstraint("run_id", name="uq_runs_run_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_runs_project_id_created_at", "runs", ["project_id", "created_at"], unique=False
    )
    op.create_index(
        "uq_runs_name_not_deleted",
        "runs",
        ["project_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "attributes",
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("path", _TEXT, nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("text", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_attributes_run_no"),
        sa.PrimaryKeyConstraint("run_no", "path", name="pk_attributes"),
    )
    op.create_index("ix_attributes_path_number", "attributes", ["path", "number"], unique=False)
    op.create_table(
        "env_attributes",
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("env_no", sa.Integer(), nullable=False),
        sa.Column("episode", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", _TEXT, nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("text", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(["env_no"], ["envs.env_no"], name="fk_env_attributes_env_no"),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_env_attributes_run_no"),
        sa.PrimaryKeyConstraint("run_no", "env_no", "episode", "path", name="pk_env_attributes"),
    )
    op.create_table(
        "loggers",
        sa.Column("logger_no", sa.Integer(), nullable=False),
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("logger_id", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_loggers_run_no"),
        sa.PrimaryKeyConstraint("logger_no", name="pk_loggers"),
        sa.UniqueConstraint("run_no", "logger_id", name="uq_loggers_run_no_logger_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "metric_labels",
        sa.Column("metric_no", sa.Integer(), nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("value", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["metric_no"], ["metrics.metric_no"], name="fk_metric_labels_metric_no"
        ),
        sa.PrimaryKeyConstraint("metric_no", "key", name="pk_metric_labels"),
    )
    op.create_index("ix_metric_labels_key_value", "metric_labels", ["key", "value"], unique=False)
    op.create_table(
        "run_aliases",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_run_aliases_run_no"),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_aliases"),
    )
    op.create_table(
        "tags",
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("tag", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_tags_run_no"),
        sa.PrimaryKeyConstraint("run_no", "tag", name="pk_tags"),
    )
    op.create_index("ix_tags_tag", "tags", ["tag"], unique=False)
    op.create_table(
        "writers",
        sa.Column("writer_no", sa.Integer(), nullable=False),
        sa.Column("writer_id", sa.String(length=32), nullable=False),
        sa.Column("run_no", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("logger_no", sa.Integer(), nullable=False),
        sa.Column("alias_run_id", sa.String(length=32), nullable=True),
        sa.Column("orchestration_id", _TEXT, nullable=True),
        sa.Column("host", _TEXT, nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("client_version", _TEXT, nullable=True),
        sa.Column("created_run", sa.Boolean(), nullable=False),
        sa.Column("is_lead", sa.Boolean(), nullable=False),
        sa.Column("lives", sa.Boolean(), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("close_status", sa.String(length=16), nullable=True),
        sa.Column("attr_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", _TEXT, nullable=True),
        sa.CheckConstraint(
            "close_status IN ('finished', 'failed', 'lost')", name=op.f("ck_writers_close_status")
        ),
        sa.ForeignKeyConstraint(["logger_no"], ["loggers.logger_no"], name="fk_writers_logger_no"),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_writers_run_no"),
        sa.PrimaryKeyConstraint("writer_no", name="pk_writers"),
        sa.UniqueConstraint("writer_id", name="uq_writers_writer_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_writers_living_lease_until",
        "writers",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("lives = 1"),
        postgresql_where=sa.text("lives"),
    )
    op.create_index("ix_writers_run_no", "writers", ["run_no"], unique=False)


def downgrade() -> None:
    """Undo."""
    for table in (
        "writers",
        "tags",
        "run_aliases",
        "metric_labels",
        "loggers",
        "env_attributes",
        "attributes",
        "runs",
        "metrics",
        "envs",
        "projects",
        "workspaces",
        "meta",
    ):
        op.drop_table(table)
