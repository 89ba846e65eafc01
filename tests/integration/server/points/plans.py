"""What the engine plans, and what a store notes of itself."""

from collections.abc import Callable

from metrana.server.points import PointsStore


def explained(store: PointsStore, action: Callable[[], object]) -> str:
    """Gives the plans of what an action reads."""
    plans = []
    engine = store._engine
    read = engine.read

    def explaining(sql: str, schema: object) -> object:
        plans.append(engine._keeper.query(f"EXPLAIN {sql}", "TSV").bytes().decode())
        return read(sql, schema)

    engine.read = explaining
    try:
        action()
    finally:
        del engine.read
    return "\n".join(plans)


def versions(store: PointsStore) -> list[str]:
    """The schema versions that a store had."""
    rows = store._engine._keeper.query("SELECT * FROM meta ORDER BY 1", "TSV").bytes()
    return rows.decode().split()
