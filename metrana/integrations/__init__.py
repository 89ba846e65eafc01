"""Adapters: what turns a framework's events into calls of a `Run`.

One module a framework, imported only when asked for: `metrana.integrations.lightning`,
`.transformers`, `.gymnasium`, `.sb3`. Each needs the extra of its name.
"""
