"""Plans, prices and terms of a configuration, as limits and books use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene import app_books
from convene.app_books import allowance_of, allowances_of, lives_of, price_of, terms_of
from convene.config import Config, Model, Plan, Price, Upstream
from convene.limits.allowance import Allowance
from convene.serving.base import Principal
from convene.serving.terms import PLAIN, Terms
from convene.usage import Usage

if TYPE_CHECKING:
    from pathlib import Path


def test_money_of_a_plan_becomes_micro_units() -> None:
    plan = Plan(requests_per_minute=3, budget_per_day=0.1, budget_per_month=2.5, budget_total=1e6)
    assert allowance_of(plan) == Allowance(
        requests_per_minute=3, budget_per_day=100_000, budget_per_month=2_500_000, budget_total=10**12
    )


@pytest.mark.parametrize("plan", ["owner", "pro", "free", "lab"])
def test_every_plan_of_a_configuration_and_every_built_in_one_can_be_had(plan: str) -> None:
    found = allowances_of(Config(plans={"lab": Plan(requests_per_day=1)}))
    limits = found.of_caller(Principal(key_id="k", owner="o", plan=plan))
    assert limits
    assert all(limit.amount > 0 for limit in limits)


def test_a_price_is_for_a_million_tokens_and_its_version_follows_from_its_figures() -> None:
    price = price_of(Price(input=0.5, output=1.9, cached_input=0.05, request=0.001, image=0.04), "USD")
    assert price.cost(Usage(1_000_000, 1_000_000, cached_tokens=0)) == 2_400_000 + 1_000
    assert price.cost(Usage(1_000_000, 0, cached_tokens=1_000_000), images=1) == 50_000 + 1_000 + 40_000
    assert price_of(Price(input=0.5), "USD").cached == 500_000
    versions = {
        price_of(Price(input=0.5), "USD").version,
        price_of(Price(input=0.6), "USD").version,
        price_of(Price(input=0.5), "EUR").version,
    }
    assert len(versions) == 3
    assert price_of(Price(input=0.5), "USD").version in versions


def test_a_deployment_has_the_terms_of_its_model_its_price_and_its_upstream() -> None:
    config = Config(
        upstreams={"up": Upstream(base_url="http://up", on_disconnect="drain", drain_s=7.0)},
        models={"m": Model(price="dear", limits="pool", limits_per_key="each"), "n": Model()},
        plans={"pool": Plan(concurrent_requests=4), "each": Plan(requests_per_minute=2)},
        prices={"dear": Price(input=1.0), "n": Price(output=2.0)},
    )
    assert terms_of(config, "m", "up") == Terms(
        price=price_of(Price(input=1.0), "USD"),
        shared=Allowance(concurrent_requests=4),
        per_key=Allowance(requests_per_minute=2),
        on_disconnect="drain",
        drain_s=7.0,
    )
    assert terms_of(config, "n", "embedded") == Terms(price=price_of(Price(output=2.0), "USD"))
    assert terms_of(config, "unknown", "embedded") == PLAIN


def folders(config: Config, url: str) -> set[str]:
    """Return the folders in which a writer to the database of `url` holds its lock."""
    lives = lives_of(config, url)
    assert lives is not None
    lives.hold("w-1")
    found = {path.name for path in config.data_dir.iterdir()}
    lives.forget("w-1")
    return found


def test_a_database_has_one_folder_of_lock_files_whoever_logs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boot_id").write_text("6a09e667\n")
    monkeypatch.setattr(app_books, "BOOT_ID", tmp_path / "boot_id")
    config = Config(data_dir=tmp_path / "data")
    first = folders(config, "postgresql://ann:old@db.internal/convene")
    assert first == folders(config, "postgresql://ann:n%40w@db.internal/convene")
    assert len(folders(config, "postgresql://ann:old@db.internal/other")) == 2


def test_where_starts_of_the_machine_cannot_be_told_apart_there_are_no_lock_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_books, "BOOT_ID", tmp_path / "missing")
    assert lives_of(Config(data_dir=tmp_path), "postgresql://db.internal/convene") is None
