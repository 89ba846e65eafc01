"""Small answers as JSON that loses nothing: NaN, ±Inf and datetimes are tagged objects.

```
NaN, Infinity, -Infinity   {"$number": "NaN"}
an integer of many digits  {"$integer": "123…"}
datetime                   {"$datetime": "2026-01-02T03:04:05+00:00"}
a mapping with a $ key     {"$mapping": {…}}
```

JSON has no non-finite numbers, and a browser refuses those that Python writes. Integers are exact
at any size; of those that are written as numbers, a reader without big integers rounds the larger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from metrana import integers

_NUMBER: Final = "$number"
_INTEGER: Final = "$integer"
_DATETIME: Final = "$datetime"
_MAPPING: Final = "$mapping"
_NONFINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any) -> bytes:
    """Writes nested mappings, sequences, str, int, float, bool, None and datetime."""
    text = json.dumps(_tagged(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def loads(data: bytes | str) -> Any:
    """Reads what `dumps` wrote.

    Raises:
        ValueError: It is something else.
    """
    return json.loads(data, object_hook=_untagged)


def _tagged(value: Any) -> Any:
    if integers.is_long(value):
        return {_INTEGER: integers.digits(value)}
    if isinstance(value, float) and not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return {_NUMBER: name}
    if isinstance(value, datetime):
        return {_DATETIME: value.isoformat()}
    if isinstance(value, Mapping):
        plain = {key: _tagged(item) for key, item in value.items()}
        return {_MAPPING: plain} if any(key.startswith("$") for key in plain) else plain
    if isinstance(value, list | tuple):
        return [_tagged(item) for item in value]
    return value


def _untagged(value: dict[str, Any]) -> Any:
    if len(value) != 1:
        return value
    ((key, item),) = value.items()
    if key == _NUMBER:
        return _NONFINITE[item]
    if key == _INTEGER:
        return integers.from_digits(item)
    if key == _DATETIME:
        return datetime.fromisoformat(item)
    return item if key == _MAPPING else value
