"""The wire contract's Python code, generated from `proto/` by `make proto`. Do not edit."""
