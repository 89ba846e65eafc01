"""The server: ingestion, storage and queries (extra `server`)."""
