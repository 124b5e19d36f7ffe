"""The steps that lead an SQLite file from any older shape to the present one, in order; the number is the place.

A step that has been released is never edited: what is to change becomes a further step. Applied by `sqlite.py`.
"""

from __future__ import annotations

Step = tuple[str, ...]
"""The statements of one step; a step is applied whole or not at all."""

STEPS: tuple[Step, ...] = (
    (
        """
        CREATE TABLE keys (
            id         TEXT PRIMARY KEY,
            name       TEXT NOT NULL,
            owner      TEXT NOT NULL,
            plan       TEXT NOT NULL,
            digest     BLOB NOT NULL CHECK (length(digest) = 32),
            last4      TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL,
            revoked_at REAL,
            models     TEXT,          -- a JSON list; NULL = all
            scopes     TEXT NOT NULL  -- a JSON list
        ) STRICT
        """,
    ),
)
