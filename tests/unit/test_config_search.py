"""The settings of web search: sections within a section, from every source, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.config import ConfigError, Secret, describe, load, secrets_of
from convene.config_handover import seal, unseal

if TYPE_CHECKING:
    from pathlib import Path

    from convene.config import Config

ISSUE = """
[search]
engines = ["searxng", "brave"]
[search.searxng]
base_url = "http://searx.internal:8080"
[search.brave]
api_key = "brave-key-1"
[search.tavily]
api_key = "tavily-key-1"
"""


def read(folder: Path, text: str = "", flags: dict[str, str] | None = None, **env: str) -> Config:
    if text:
        (folder / "convene.toml").write_text(text, encoding="utf-8")
    return load(flags or {}, {"HOME": str(folder)} | env, folder)


def refusal(folder: Path, text: str = "", flags: dict[str, str] | None = None, **env: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, flags, **env)
    return caught.value


def test_the_sample_of_the_issue_is_read(tmp_path: Path) -> None:
    search = read(tmp_path, ISSUE).search

    assert search.order == ("searxng", "brave")
    assert search.searxng.base_url == "http://searx.internal:8080"
    assert search.brave.api_key == Secret("brave-key-1")
    assert search.tavily.api_key == Secret("tavily-key-1")
    assert search.brave.base_url == "https://api.search.brave.com/res/v1"


def test_the_environment_reaches_sections_within_a_section(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("from a file\n", encoding="utf-8")
    config = read(
        tmp_path,
        CONVENE_SEARCH_SEARXNG_BASE_URL="http://searx:8080",
        CONVENE_SEARCH_BRAVE_API_KEY_FILE=str(secret),
        CONVENE_SEARCH_TIMEOUT_S="3.5",
        CONVENE_SEARCH_ENGINES="brave,searxng",
        CONVENE_SEARCH_SEARXNG_HEADERS='{"authorization": "Basic eDp5"}',
    )

    assert config.search.searxng.base_url == "http://searx:8080"
    assert config.search.brave.api_key == Secret("from a file")
    assert config.search.timeout_s == 3.5
    assert config.search.engines == ("brave", "searxng")
    assert config.search.searxng.headers == {"authorization": Secret("Basic eDp5")}
    assert config.sources["search.searxng.base_url"] == "environment CONVENE_SEARCH_SEARXNG_BASE_URL"
    assert config.notices == ()


def test_flags_reach_sections_within_a_section(tmp_path: Path) -> None:
    config = read(tmp_path, flags={"search.searxng.base_url": "http://here:1", "search.count": "9"})

    assert config.search.searxng.base_url == "http://here:1"
    assert config.search.count == 9


def test_the_environment_beats_the_file_setting_by_setting(tmp_path: Path) -> None:
    search = read(tmp_path, ISSUE, CONVENE_SEARCH_SEARXNG_BASE_URL="http://other").search

    assert search.searxng.base_url == "http://other"
    assert search.brave.api_key == Secret("brave-key-1")


def test_an_empty_inner_section_says_nothing_and_is_no_error(tmp_path: Path) -> None:
    assert read(tmp_path, "[search.metasearch]\n").search.order == ("metasearch",)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("", ("metasearch",)),
        ('[search.searxng]\nbase_url = "http://x"', ("searxng",)),
        ('[search.tavily]\napi_key = "k"\n[search.brave]\napi_key = "k"', ("brave", "tavily")),
        ('[search]\nengines = ["metasearch", "tavily"]\n[search.tavily]\napi_key = "k"', ("metasearch", "tavily")),
    ],
)
def test_without_an_order_what_is_set_up_is_asked_and_else_the_keyless_engine(
    text: str, order: tuple[str, ...], tmp_path: Path
) -> None:
    assert read(tmp_path, text).search.order == order


def test_every_setting_is_shown_with_its_source_and_secrets_as_stars(tmp_path: Path) -> None:
    shown = {one.key: one for one in describe(read(tmp_path, ISSUE))}

    assert shown["search.engines"].value == '["searxng", "brave"]'
    assert shown["search.searxng.base_url"].value == "http://searx.internal:8080"
    assert shown["search.searxng.base_url"].source.endswith("convene.toml")
    assert shown["search.brave.api_key"].value == "********"
    assert shown["search.tavily.per_second"].source == "default"
    assert "key-1" not in str(shown)


def test_the_log_knows_every_secret_of_the_section(tmp_path: Path) -> None:
    text = ISSUE + '[search.metasearch]\nproxy = "socks5://u:pw@p:1"\n'
    config = read(tmp_path, text, CONVENE_SEARCH_SEARXNG_HEADERS='{"x-key": "searx-secret"}')

    assert {"brave-key-1", "tavily-key-1", "searx-secret", "socks5://u:pw@p:1"} <= {*secrets_of(config)}


def test_workers_are_handed_the_inner_sections(tmp_path: Path) -> None:
    config = read(tmp_path, ISSUE)

    assert unseal(seal(config)).search == config.search


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[search]\nengines = ["google"]', "search.engines names 'google', which is not one of: searxng, brave,"),
        ('[search]\nengines = ["metasearch", "metasearch"]', "search.engines names an engine twice"),
        ('[search]\nengines = ["searxng"]', "search.searxng.base_url must be set"),
        ('[search]\nengines = ["brave"]', "search.brave.api_key must be set"),
        ('[search]\nengines = ["tavily"]', "search.tavily.api_key must be set"),
        ('[search.searxng]\nbase_url = "searx:8080"', "search.searxng.base_url must be absolute"),
        ('[search.searxng]\nbase_url = "http://u:pw@searx"', "without user"),
        ('[search.brave]\nbase_url = "ftp://x"', "search.brave.base_url must be absolute"),
        ('[search.tavily]\nproxy = "proxy:3128"', "search.tavily.proxy must be http://host:port"),
        ('[search.brave]\nproxy = "socks5://p:1"', "search.brave.proxy must be http://host:port"),
        ('[search]\nregion = "german"', "search.region must be a language"),
        ('[search]\nexclude_domains = ["https://x.example"]', "search.exclude_domains must hold names"),
        ("[search]\ncount = 21", "search.count must be a whole number >= 1 and <= 20"),
        ("[search]\ncuont = 3", "unknown key search.cuont; did you mean search.count?"),
        ('[search.brave]\napi_kee = "x"', "unknown key search.brave.api_kee; did you mean search.brave.api_key?"),
        ('[search.bing]\napi_key = "x"', "unknown key search.bing"),
        ("[search]\nbrave = 3", "search.brave must be a table"),
        ("search = 3", "search must be a table"),
    ],
)
def test_what_cannot_work_is_refused_with_the_key_and_the_reason(text: str, says: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, text)

    assert says in error.message
    assert "pw@" not in error.message


def test_a_switched_off_search_needs_no_keys(tmp_path: Path) -> None:
    assert not read(tmp_path, '[search]\nenabled = false\nengines = ["brave"]').search.enabled


def test_a_variable_of_an_inner_section_that_names_nothing_is_reported(tmp_path: Path) -> None:
    notices = read(tmp_path, CONVENE_SEARCH_BRAVE_KEY="x", CONVENE_SEARCH_WHAT="y").notices

    assert [one.split()[1] for one in notices] == ["CONVENE_SEARCH_BRAVE_KEY", "CONVENE_SEARCH_WHAT"]
