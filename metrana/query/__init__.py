"""Reading back what was logged (extra `query`; the embedded store needs extra `server`)."""

try:
    from metrana.query.client import Client
    from metrana.query.run_info import RunInfo
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"metrana.query needs {error.name}, which is not installed: "
        "pip install 'metrana[query]' (with the embedded store: 'metrana[server]')",
        name=error.name,
    ) from error

__all__ = ["Client", "RunInfo"]
