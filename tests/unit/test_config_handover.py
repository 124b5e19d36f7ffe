"""Settings on their way to a worker arrive whole: each value, each secret, each source."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from convene.config import Config, describe, load, secrets_of
from convene.config_handover import seal, unseal

FULL = """
host = "0.0.0.0"
workers = 3
cors_origins = ["https://chat.example.com", "https://other.example.com"]
data_dir = "data"

[edge]
grace_s = 1.5

[engine]
slots = 7
hub_token = "hf_0123456789"

[upstreams.gpu]
base_urls = ["http://a:1/v1", "http://b:1/v1"]
weights = [1, 3]
api_key = "sk-0123456789"
headers = { X-Team = "token-of-the-team" }

[models.asi1]
upstream = ["gpu"]
model = "big"
aliases = ["one", "two"]
context_window = 4096
temperature = 0.5
vision = false
"""


@pytest.fixture
def full(tmp_path: Path) -> Config:
    (tmp_path / "convene.toml").write_text(FULL)
    return load({"port": "0"}, {"HOME": "/home/ada", "CONVENE_NO_SUCH": "1"}, tmp_path)


def test_what_arrives_is_what_was_sent(full: Config) -> None:
    assert unseal(seal(full)) == full


def test_secrets_arrive_as_secrets(full: Config) -> None:
    arrived = unseal(seal(full))
    assert secrets_of(arrived) == secrets_of(full)
    assert set(secrets_of(arrived)) >= {"hf_0123456789", "sk-0123456789", "token-of-the-team"}
    assert "sk-0123456789" not in repr(arrived)


def test_paths_arrive_as_paths(full: Config) -> None:
    arrived = unseal(seal(full))
    assert isinstance(arrived.data_dir, Path)
    assert arrived.store_path == full.store_path


def test_sources_and_notices_arrive(full: Config) -> None:
    arrived = unseal(seal(full))
    assert list(describe(arrived)) == list(describe(full))
    assert arrived.notices == full.notices
    assert arrived.notices


def test_the_defaults_arrive() -> None:
    assert unseal(seal(Config())) == Config()


def test_no_other_encoder_takes_a_secret(full: Config) -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(full)
