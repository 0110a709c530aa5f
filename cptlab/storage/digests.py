"""Digests of settings: the same data has the same name on disk.

Use `fingerprint` to name a directory or a run after the plain data that it depends on.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(data: Any) -> str:
    """Return a short digest of plain JSON data: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
