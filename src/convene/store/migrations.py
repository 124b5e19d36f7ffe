"""The steps that lead a store from any older shape to the present one, in order; the number is the place.

A step that has been released is never edited: what is to change becomes a further step. `sqlite_file.py` and
`postgres.py` apply them under a lock, each in its dialect (OPS-32).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.store.schema import AddColumn, Column, Index, Script, Table

if TYPE_CHECKING:
    from convene.store.schema import Dialect, Operation

Step = tuple[str, ...]
"""The statements of one step in one dialect; a step is applied whole or not at all."""

KEYS: Final[tuple[Operation, ...]] = (
    Table(
        name="keys",
        columns=(
            Column("id", "text"),
            Column("name", "text"),
            Column("owner", "text"),
            Column("plan", "text"),
            Column("digest", "blob"),
            Column("last4", "text"),
            Column("created_at", "real"),
            Column("expires_at", "real", null=True),
            Column("revoked_at", "real", null=True),
            Column("models", "text", null=True),  # a JSON list; NULL = all
            Column("scopes", "text"),  # a JSON list
        ),
        primary_key=("id",),
    ),
)

_WHO: Final = (
    Column("key_id", "text"),
    Column("owner", "text"),
    Column("user_id", "text"),
    Column("team_id", "text"),
)
_FIGURES: Final = (
    Column("prompt_tokens", "int"),
    Column("cached_tokens", "int"),
    Column("completion_tokens", "int"),
    Column("reasoning_tokens", "int"),
    Column("images", "int"),
    Column("tool_calls", "int"),
    Column("agent_calls", "int"),
    Column("cost_micros", "int"),
)

BOOKS: Final[tuple[Operation, ...]] = (
    AddColumn("keys", Column("user_id", "text", default="''")),
    AddColumn("keys", Column("team_id", "text", default="''")),
    AddColumn("keys", Column("limits", "text", null=True)),  # a JSON object of `Allowance`
    AddColumn("keys", Column("model_limits", "text", null=True)),  # a JSON object: model to `Allowance`
    # A number that grows with every change of keys and accounts; the ledger's rows do not touch it.
    Table(name="revisions", columns=(Column("name", "text"), Column("number", "int")), primary_key=("name",)),
    # Who holds the store open, and when it last showed life: how an orphaned intent or claim is told.
    Table(name="writers", columns=(Column("id", "text"), Column("seen_at_us", "int")), primary_key=("id",)),
    # Intents are written many to a row (one a commit) and deleted when all of them have ended.
    Table(
        name="intents",
        columns=(Column("number", "int"), Column("writer", "text"), Column("body", "blob")),
        primary_key=("number",),
    ),
    # SQLite only: entries many to a row, safe at once and moved into `entries` some milliseconds later, in bulk, which
    # halves what the indexes cost. Whoever reads the books moves first what lies here.
    Table(
        name="journal",
        columns=(Column("number", "int"), Column("body", "blob")),
        primary_key=("number",),
    ),
    Table(
        name="entries",
        columns=(
            Column("id", "text"),
            Column("request_id", "text"),
            Column("at_us", "int"),
            Column("kind", "text"),
            *_WHO,
            Column("session_id", "text"),
            Column("agent_address", "text"),
            Column("model_asked", "text"),
            Column("model", "text"),
            Column("stream", "bool"),
            Column("price", "text"),
            Column("upstream", "text"),
            *_FIGURES,
            Column("estimated", "bool"),
            Column("status", "text"),
            Column("finish", "text"),
            Column("ttft_us", "int", null=True),
            Column("duration_us", "int"),
        ),
        primary_key=("id",),
    ),
    Index(name="entries_by_request", table="entries", columns=("request_id",)),
    Index(name="entries_by_key", table="entries", columns=("key_id", "at_us")),
    Index(name="entries_by_time", table="entries", columns=("at_us",)),
    Table(
        name="day_sums",
        columns=(
            Column("key_id", "text"),
            Column("model", "text"),
            Column("day", "int"),  # days since 1970 of the admission, UTC
            Column("user_id", "text"),
            Column("team_id", "text"),
            Column("requests", "int"),
            *_FIGURES,
        ),
        primary_key=("key_id", "model", "day", "user_id", "team_id"),  # a key may come to another team
        without_rowid=True,
    ),
    Index(name="day_sums_by_user", table="day_sums", columns=("user_id",)),
    Index(name="day_sums_by_team", table="day_sums", columns=("team_id",)),
    Table(
        name="answers",
        columns=(
            Column("owner", "text"),
            Column("key", "text"),
            Column("fingerprint", "blob"),
            Column("writer", "text"),
            Column("expires_at", "real"),
            Column("status", "int", null=True),  # NULL while it is being answered
            Column("headers", "text", null=True),  # a JSON list of pairs
            Column("body", "blob", null=True),
        ),
        primary_key=("owner", "key"),
    ),
)

ACCOUNTS: Final[tuple[Operation, ...]] = (
    # Columns are the fields of the Structs in `base_accounts.py`, in their order.
    Table(
        name="users",
        columns=(
            Column("id", "text"),
            Column("name", "text"),
            Column("email", "text"),
            Column("password", "text", null=True),  # Argon2id, parameters and salt included
            Column("role", "text"),
            Column("plan", "text"),
            Column("limits", "text", null=True),  # a JSON object of `Allowance`
            Column("created_at", "real"),
            Column("disabled_at", "real", null=True),
        ),
        primary_key=("id",),
    ),
    Index(name="users_by_email", table="users", columns=("email",), unique=True),
    Table(
        name="teams",
        columns=(
            Column("id", "text"),
            Column("name", "text"),
            Column("plan", "text"),
            Column("limits", "text", null=True),
            Column("created_at", "real"),
        ),
        primary_key=("id",),
    ),
    Table(
        name="members",
        columns=(Column("team_id", "text"), Column("user_id", "text"), Column("role", "text")),
        primary_key=("team_id", "user_id"),
    ),
    Index(name="members_by_user", table="members", columns=("user_id",)),
    Table(
        name="links",
        columns=(
            Column("id", "text"),
            Column("digest", "blob"),
            Column("purpose", "text"),
            Column("email", "text"),
            Column("role", "text"),
            Column("plan", "text"),
            Column("team_id", "text"),
            Column("user_id", "text"),
            Column("created_by", "text"),
            Column("created_at", "real"),
            Column("expires_at", "real"),
            Column("used_at", "real", null=True),
        ),
        primary_key=("id",),
    ),
    Index(name="links_by_digest", table="links", columns=("digest",), unique=True),
    Table(
        name="browser_sessions",
        columns=(
            Column("digest", "blob"),
            Column("user_id", "text"),
            Column("created_at", "real"),
            Column("seen_at", "real"),
            Column("expires_at", "real"),
        ),
        primary_key=("digest",),
    ),
    Index(name="browser_sessions_by_user", table="browser_sessions", columns=("user_id",)),
    Index(name="keys_by_user", table="keys", columns=("user_id",)),
    Index(name="keys_by_team", table="keys", columns=("team_id",)),
)

COUNTERS: Final[tuple[Operation, ...]] = (Script("postgres_counters.sql", "postgres"),)
"""SQLite's counters have a file of their own."""

RUNS: Final[tuple[Operation, ...]] = (
    # Columns are the fields of the Structs in `base_runs.py` and `base_sessions.py`, in their order.
    Table(
        name="runs",
        columns=(
            Column("id", "text"),
            Column("owner", "text"),
            Column("key_id", "text"),
            Column("session_id", "text"),
            Column("request_id", "text"),
            Column("turn_id", "text"),
            Column("model", "text"),
            Column("request", "blob"),
            Column("created_us", "int"),
            Column("fence", "int"),
            Column("status", "text"),
            Column("cancel_asked", "bool"),
            Column("finished_us", "int", null=True),
            Column("outcome", "blob"),
            Column("expires_us", "int"),
            Column("holder", "text"),  # the writer that goes on with it
        ),
        primary_key=("id",),
    ),
    Index(name="runs_by_owner", table="runs", columns=("owner", "created_us", "id")),
    Index(name="runs_by_turn", table="runs", columns=("turn_id",)),
    Index(name="runs_under_way", table="runs", columns=("created_us",), where="status = 'running'"),
    Index(name="runs_by_expiry", table="runs", columns=("expires_us",)),
    Table(
        name="run_steps",
        columns=(
            Column("run_id", "text"),
            Column("number", "int"),
            Column("seq", "int"),
            Column("kind", "text"),
            Column("name", "text"),
            Column("status", "text"),
            Column("attempt", "int"),
            Column("fence", "int"),
            Column("input", "blob"),
            Column("output", "blob"),
            Column("shown", "blob"),
            Column("prompt_tokens", "int"),
            Column("completion_tokens", "int"),
            Column("reserved_tokens", "int"),
            Column("reserved_micros", "int"),
            Column("cost_micros", "int"),
        ),
        primary_key=("run_id", "number"),
    ),
    Table(
        name="sessions",
        columns=(
            Column("owner", "text"),
            Column("id", "text"),
            Column("conversation_id", "text"),
            Column("created_us", "int"),
            Column("used_us", "int"),
            Column("size", "int"),
        ),
        primary_key=("owner", "id"),
    ),
    Index(name="sessions_by_use", table="sessions", columns=("used_us",)),
    Table(
        name="session_notes",
        columns=(
            Column("owner", "text"),
            Column("session_id", "text"),
            Column("name", "text"),
            Column("body", "blob"),
            Column("at_us", "int"),
        ),
        primary_key=("owner", "session_id", "name"),
    ),
)

MARKET: Final[tuple[Operation, ...]] = (
    Table(
        name="agents",
        columns=(
            Column("id", "text"),
            Column("protocol", "text"),
            Column("prefix", "text"),
            Column("owner", "text"),
            Column("endpoints", "blob"),  # JSON, as all blobs here
            Column("protocols", "blob"),
            Column("metadata", "blob"),
            Column("stamp", "int"),
            Column("registered_us", "int"),
            Column("expires_us", "int"),
            Column("active", "bool"),
            Column("status_stamp", "int"),
            Column("listed", "bool"),
            Column("handle", "text"),  # of the listing, once more, to be found by
            Column("url", "text"),
            Column("listing", "blob"),
            Column("terms", "blob"),
            Column("calls", "int"),
            Column("successes", "int"),
            Column("judged", "int"),
            Column("useful", "int"),
            Column("failures_in_row", "int"),
            Column("answered_us", "int"),
            Column("failed_us", "int"),
            Column("seconds", "real"),
            Column("impressions", "int"),
            Column("picks", "int"),
            Column("created_us", "int"),
            Column("changed_us", "int"),
            Column("version", "int"),
            Column("removed", "bool"),
        ),
        primary_key=("id",),
    ),
    Index(name="agents_by_handle", table="agents", columns=("handle",), unique=True, where="handle <> ''"),
    Index(name="agents_by_url", table="agents", columns=("url",), where="url <> ''"),
    Index(name="agents_by_owner", table="agents", columns=("owner", "created_us"), where="listed = 1"),
    Index(name="agents_by_version", table="agents", columns=("version",), unique=True),
    Index(name="agents_by_registration", table="agents", columns=("registered_us",), where="removed = 0"),
    Table(
        name="agent_protocols",
        columns=(Column("digest", "text"), Column("agent_id", "text")),
        primary_key=("digest", "agent_id"),
        without_rowid=True,
    ),
    Index(name="agent_protocols_by_agent", table="agent_protocols", columns=("agent_id",)),
    # Columns are the fields of the Structs in `base_market.py`, in their order.
    Table(
        name="letters",
        columns=(
            Column("uuid", "text"),
            Column("address", "text"),
            Column("envelope", "blob"),
            Column("received_us", "int"),
            Column("expires_us", "int"),
        ),
        primary_key=("uuid",),
    ),
    Index(name="letters_by_address", table="letters", columns=("address", "received_us")),
    Index(name="letters_by_expiry", table="letters", columns=("expires_us",)),
    Table(
        name="manifests",
        columns=(Column("digest", "text"), Column("name", "text"), Column("version", "text"), Column("body", "blob")),
        primary_key=("digest",),
    ),
    Table(
        name="challenges",
        columns=(
            Column("address", "text"),
            Column("owner", "text"),
            Column("text", "text"),
            Column("expires_us", "int"),
        ),
        primary_key=("address", "owner"),
    ),
    Table(
        name="assets",
        columns=(
            Column("id", "text"),
            Column("owner", "text"),
            Column("name", "text"),
            Column("media_type", "text"),
            Column("contents", "blob"),
            Column("expires_us", "int"),
            Column("readers", "blob"),
            Column("writers", "blob"),
        ),
        primary_key=("id",),
    ),
    Index(name="assets_by_owner", table="assets", columns=("owner",)),
)

# What listings mean, packed; the id is a digest of the model and the text.
VECTORS: Final[tuple[Operation, ...]] = (
    Table(
        name="agent_vectors",
        columns=(Column("id", "text"), Column("vector", "blob"), Column("used_us", "int")),
        primary_key=("id",),
    ),
    Index(name="agent_vectors_by_use", table="agent_vectors", columns=("used_us",)),
)

CHANGES: Final = (KEYS, BOOKS, ACCOUNTS, COUNTERS, RUNS, MARKET, VECTORS)


def steps_for(dialect: Dialect) -> tuple[Step, ...]:
    """Return all steps as statements of one dialect."""
    return tuple(
        tuple(statement for operation in change for statement in operation.statements(dialect)) for change in CHANGES
    )


STEPS: Final = steps_for("sqlite")
