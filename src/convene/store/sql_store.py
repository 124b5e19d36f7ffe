"""The parts of a store that are the same over every database: those written to `sql.Database` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.store.sql_accounts import SqlAccounts
from convene.store.sql_answers import SqlAnswers
from convene.store.sql_keys import SqlKeys
from convene.store.sql_market import SqlMarket
from convene.store.sql_sessions import SqlSessions
from convene.store.sql_vectors import SqlVectors

if TYPE_CHECKING:
    from convene.store.presence import Presence
    from convene.store.sql import Database


class SqlStore:
    """A store but for its books and its runs, which are written in a way of each database's own."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._keys = SqlKeys(database)
        self._answers = SqlAnswers(database, presence)
        self._accounts = SqlAccounts(database)
        self._sessions = SqlSessions(database)
        self._market = SqlMarket(database)
        self._vectors = SqlVectors(database)

    @property
    def keys(self) -> SqlKeys:
        """The API keys."""
        return self._keys

    @property
    def answers(self) -> SqlAnswers:
        """The kept answers of idempotent requests."""
        return self._answers

    @property
    def accounts(self) -> SqlAccounts:
        """The users, teams, links and browser sessions."""
        return self._accounts

    @property
    def sessions(self) -> SqlSessions:
        """What is remembered between the requests of a conversation."""
        return self._sessions

    @property
    def market(self) -> SqlMarket:
        """The agents that have registered or were listed."""
        return self._market

    @property
    def vectors(self) -> SqlVectors:
        """What listings mean."""
        return self._vectors
