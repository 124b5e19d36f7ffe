"""The composition of limits and books: the plans, prices, stores and counters of a configuration, for `app.py`.

A third part of the composition root, beside `app.py` and `app_models.py`. `BookRoom` is everything that counts and
remembers what was used, with one life cycle.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

import msgspec

from convene.config import ConfigError, plans_of
from convene.limits.allowance import Allowance
from convene.limits.estimate import Estimates
from convene.serving.allowances import Allowances
from convene.serving.bookkeeping import Bookkeeping, PastLimits, rebuild
from convene.serving.books import Books, BookTerms
from convene.serving.fallback import Guarded
from convene.serving.line import Line
from convene.serving.terms import Terms
from convene.store.lives import Lives
from convene.store.memory_counters import MemoryCounters
from convene.store.postgres import PostgresStore
from convene.store.postgres_counters import PostgresCounters
from convene.store.redis_counters import RedisCounters
from convene.store.sqlite import SqliteStore
from convene.store.sqlite_counters import SqliteCounters
from convene.usage import FREE, Price

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.clock import Clock
    from convene.config import Config, Plan
    from convene.config import Price as PriceSetting
    from convene.serving.base import Principal
    from convene.serving.bookkeeping import KnownKilled
    from convene.serving.catalog import Catalog
    from convene.store.base import Store
    from convene.store.base_counters import Counters

log = logging.getLogger("convene.app")

MICROS: Final = 1_000_000
VERSION_DIGITS: Final = 12
COUNTERS_WAIT_S: Final = 0.05
"""What a decision may take before this process goes on without the counters elsewhere (goal A8)."""
POSTGRES_WAIT_S: Final = 0.5
"""The same for counters in Postgres, whose decisions on one hot key take 2 ms each, and longer while it is busy."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""Linux: another text after every start of the machine."""


Principals = Callable[[], Awaitable["Mapping[str, Principal]"]]
Renew = Callable[["Counters"], Awaitable[bool]]


class BookRoom:
    """The limits and the ledger of one running application."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        store: Store,
        counters: Counters,
        allowances: Allowances,
        killed: KnownKilled | None,
    ) -> None:
        limits = config.limits
        self.allowances = allowances
        self.counters = counters
        self._line = Line(limits.queue_s, limits.queue_max) if limits.queue_s > 0 else None
        self.books = Books(
            counters,
            store.ledger,
            self.allowances,
            Estimates(limits.output_estimate),
            clock,
            BookTerms(
                lease_us=int(limits.lease_s * MICROS),
                output_ceiling=limits.output_ceiling,
                currency=config.currency,
            ),
            self._line,
        )
        self._keeping = Bookkeeping(self.books, retention_days=config.ledger.retention_days, known=killed)

    @classmethod
    async def open(
        cls,
        config: Config,
        clock: Clock,
        store: Store,
        catalog: Catalog,
        principals: Principals,
        killed: KnownKilled | None = None,
    ) -> Self:
        """Open the counters, bring them up to what the ledger knows, and begin the background work.

        `principals` says who is behind every key, at the moment it is asked; `killed` knows what some of the killed
        have really used.

        Raises:
            ConfigError: counters that are not configured.
            StoreFault: they, or the ledger, cannot be used.
        """
        allowances = allowances_of(config)

        async def renew(counters: Counters) -> bool:
            known = PastLimits(allowances, catalog.terms(), await principals())
            counted = await rebuild(counters, store.ledger, clock.now(), known)
            if counted:
                log.info("counters were empty and begin with %s requests of the past", counted)
            return counted is not None

        counters = await open_counters(config, clock, renew)
        try:
            await renew(counters)
        except BaseException:  # a cancelled start too must leave nothing open; nothing is swallowed
            await counters.aclose()
            raise
        room = cls(config, clock, store, counters, allowances, killed)
        room._keeping.start()
        return room

    @property
    def waiting(self) -> int:
        """How many requests wait for their limits."""
        return 0 if self._line is None else self._line.length

    async def aclose(self) -> None:
        """End the background work, settle what is left, let go of the counters."""
        if self._line is not None:
            await self._line.aclose()
        await self._keeping.aclose()
        await self.counters.aclose()


async def open_store(config: Config, clock: Clock) -> Store:
    """Open what is remembered: Postgres where its URL is set, else the SQLite file. Raises `StoreFault`."""
    url = config.database_url.reveal()
    if url:
        return await PostgresStore.open(url, clock, lives_of(config, url))
    return await SqliteStore.open(config.store_path, clock)


def lives_of(config: Config, url: str) -> Lives | None:
    """Return the lock files of this machine's writers to a database, if starts of the machine can be told apart."""
    if not BOOT_ID.exists():
        return None
    database = hashlib.sha256(url.rpartition("@")[2].encode()).hexdigest()[:16]
    return Lives(config.data_dir / f"postgres-{database}", boot_id())


async def open_counters(config: Config, clock: Clock, renew: Renew) -> Counters:
    """Open the counters that `[limits] counters` names. Raises `ConfigError`, `StoreFault`.

    `renew` brings counters elsewhere up to what the ledger knows when they come back empty after an outage.
    """
    kind = config.limits.counters
    if kind == "auto":
        near: Literal["memory", "sqlite"] = "sqlite" if config.workers > 1 else "memory"
        kind = "redis" if config.redis_url else "postgres" if config.database_url else near
    if kind == "redis":
        if not config.redis_url:
            raise ConfigError('limits.counters = "redis" needs redis_url')
        shared = RedisCounters(config.redis_url.reveal(), clock, tag=config.limits.tag, wait_s=COUNTERS_WAIT_S)
        return _guarded(shared, config, clock, renew, wait_s=None)  # it keeps to the wait itself
    if kind == "postgres":
        if not config.database_url:
            raise ConfigError('limits.counters = "postgres" needs database_url')
        books = await PostgresCounters.open(config.database_url.reveal())
        return _guarded(books, config, clock, renew, wait_s=POSTGRES_WAIT_S)
    if kind == "sqlite":
        return SqliteCounters.open(config.data_dir, clock, boot_id())
    if config.workers > 1:
        raise ConfigError('limits.counters = "memory" counts for one process only; with workers use "sqlite"')
    return MemoryCounters(clock)


def _guarded(counters: Counters, config: Config, clock: Clock, renew: Renew, *, wait_s: float | None) -> Counters:
    """Return counters that go on when their store does not: money closed, rates at this process's share (A8)."""
    return Guarded(
        counters,
        lambda: MemoryCounters(clock).local,
        clock,
        workers=config.workers * config.limits.replicas,
        wait_s=wait_s,
        rebuild=lambda: renew(counters),
    )


def boot_id() -> str:
    """Return what tells this start of the machine from others; where nobody says, counters live as long as the file."""
    return BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else "unknown"


def allowances_of(config: Config) -> Allowances:
    """Return the limits of all plans."""
    return Allowances(allowances_by_plan(config))


def allowances_by_plan(config: Config) -> dict[str, Allowance]:
    """Return each plan's limits by its name."""
    return {name: allowance_of(plan) for name, plan in plans_of(config.plans).items()}


def allowance_of(plan: Plan) -> Allowance:
    """Return a plan's limits, money in micro-units."""
    fields = msgspec.structs.asdict(plan)
    for name in ("budget_per_day", "budget_per_month", "budget_total"):
        if fields[name] is not None:
            fields[name] = round(fields[name] * MICROS)
    return Allowance(**fields)


def terms_of(config: Config, name: str, upstream: str) -> Terms:
    """Return the terms of the deployment `name` on `upstream`."""
    model, host = config.models.get(name) or config.images.get(name), config.upstreams.get(upstream)
    plans = plans_of(config.plans)
    price = config.prices.get((model.price if model else "") or name)
    terms = Terms(price=FREE if price is None else price_of(price, config.currency))
    if model is not None:
        terms = msgspec.structs.replace(
            terms,
            shared=allowance_of(plans[model.limits]) if model.limits else None,
            per_key=allowance_of(plans[model.limits_per_key]) if model.limits_per_key else None,
        )
    if host is not None:
        terms = msgspec.structs.replace(terms, on_disconnect=host.on_disconnect, drain_s=host.drain_s)
    return terms


def price_of(setting: PriceSetting, currency: str) -> Price:
    """Return a price in micro-units; its version follows from its figures, so that a row says what it was made of."""
    cached = setting.input if setting.cached_input is None else setting.cached_input
    said = msgspec.json.encode((currency, setting.input, cached, setting.output, setting.request, setting.image))
    return Price(
        input=round(setting.input * MICROS),
        cached=round(cached * MICROS),
        output=round(setting.output * MICROS),
        request=round(setting.request * MICROS),
        image=round(setting.image * MICROS),
        version=hashlib.sha256(said).hexdigest()[:VERSION_DIGITS],
    )
