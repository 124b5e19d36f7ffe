"""The settings of the guarded way out: what is taken, what is refused at start, and how they become rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.app_egress import open_egress
from convene.config import Config, ConfigError, EgressSettings, describe, load, secrets_of
from convene.egress import Rules

if TYPE_CHECKING:
    from pathlib import Path


def loaded(folder: Path, text: str) -> Config:
    (folder / "convene.toml").write_text(f"[egress]\n{text}\n", encoding="utf-8")
    return load({}, {"HOME": "/home/ada"}, folder)


def test_nothing_private_is_permitted_by_default(tmp_path: Path) -> None:
    settings = load({}, {}, tmp_path).egress
    assert (settings.allow, settings.deny, settings.ports, bool(settings.proxy)) == ((), (), (), False)


def test_networks_ports_and_a_proxy_are_taken(tmp_path: Path) -> None:
    text = 'allow = ["10.1.0.0/16", "fd00::/8", "127.0.0.1"]\ndeny = ["8.8.8.0/24"]\nports = [8080]\n'
    config = loaded(tmp_path, text + 'proxy = "http://u:hush@proxy:3128"')
    assert config.egress.allow == ("10.1.0.0/16", "fd00::/8", "127.0.0.1")
    assert "http://u:hush@proxy:3128" in secrets_of(config)
    assert not any("hush" in one.value for one in describe(config))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('allow = ["10.1.0.1/16"]', "egress.allow"),
        ('allow = ["localhost"]', "egress.allow"),
        ('deny = ["10.0.0.0/33"]', "egress.deny"),
        ("ports = [0]", "egress.ports"),
        ("ports = [65536]", "egress.ports"),
        ('proxy = "proxy:3128"', "egress.proxy"),
        ('user_agent = "a\\nb"', "egress.user_agent"),
        ('user_agent = "ü"', "egress.user_agent"),
        ("redirects_max = 4", "egress.redirects_max"),
        ("body_bytes_max = 1", "egress.body_bytes_max"),
        ("total_s = 0", "egress.total_s"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_start_by_its_name(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert word in caught.value.message


def test_every_setting_becomes_a_rule() -> None:
    settings = EgressSettings(
        allow=("10.1.0.0/16",),
        deny=("10.1.2.0/24",),
        ports=(8080,),
        user_agent="Ours",
        redirects_max=1,
        body_bytes_max=2048,
        connect_s=1.0,
        first_byte_s=2.0,
        total_s=3.0,
        open_max=4,
        open_per_host_max=5,
    )
    rules = open_egress(settings)._rules
    assert (rules.judge.judge("10.1.0.1"), rules.judge.judge("10.1.2.1")) == ("allowed", "refused")
    assert rules.ports == {80, 443, 8080}
    assert (rules.user_agent, rules.redirects_max, rules.body_bytes_max, rules.is_proxied) == ("Ours", 1, 2048, False)
    assert (rules.connect_s, rules.first_byte_s, rules.total_s) == (1.0, 2.0, 3.0)
    assert (rules.open_max, rules.open_per_host_max) == (4, 5)


def test_the_defaults_of_settings_and_rules_are_the_same() -> None:
    rules = open_egress(EgressSettings())._rules
    assert rules == Rules()
