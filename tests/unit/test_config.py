"""Settings: where they come from, which source wins, and what a wrong one is told."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import msgspec
import pytest

from convene.config import (
    Config,
    ConfigError,
    Secret,
    client_settings,
    describe,
    is_loopback,
    load,
    secrets_of,
)
from convene.config_books import PLANS, plans_of

HOME = {"HOME": "/home/ada"}


def with_file(folder: Path, text: str, name: str = "convene.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path, text: str = "", environ: dict[str, str] | None = None, **flags: str) -> str:
    """Return the message with which the settings are refused."""
    if text:
        with_file(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(flags, environ or {}, folder)
    return caught.value.message


def sources(config: Config) -> dict[str, tuple[str, str]]:
    return {one.key: (one.value, one.source) for one in describe(config)}


# Defaults.


def test_without_any_source_everything_has_its_default(tmp_path: Path) -> None:
    config = load({}, HOME, tmp_path)
    assert (config.host, config.port, config.auth, config.default_model) == ("127.0.0.1", 8000, "keys", "asi1")
    assert config.edge.body_bytes_max == 33_554_432
    assert (config.engine.model, config.engine.slots, config.engine.context_per_slot) == ("smollm2-135m", 4, 2048)
    assert config.tools.choose_threshold == 0.20
    assert (config.upstreams, config.models, config.sources, config.notices) == ({}, {}, {}, ())


def test_the_folders_are_the_platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    config = load({}, HOME, tmp_path)
    assert config.data_dir == Path("/home/ada/.local/share/convene")
    assert config.cache_dir == Path("/home/ada/.cache/convene")
    config = load({}, HOME | {"XDG_DATA_HOME": "/srv/data", "XDG_CACHE_HOME": "relative"}, tmp_path)
    assert config.data_dir == Path("/srv/data/convene")
    assert config.cache_dir == Path("/home/ada/.cache/convene")
    assert load({}, {}, tmp_path).data_dir == tmp_path / ".convene" / "data"
    monkeypatch.setattr("sys.platform", "darwin")
    assert load({}, HOME, tmp_path).cache_dir == Path("/home/ada/Library/Caches/convene")
    monkeypatch.setattr("sys.platform", "win32")
    windows = {"LOCALAPPDATA": "/c/ada", "USERPROFILE": "/c"}
    assert load({}, windows, tmp_path).data_dir == Path("/c/ada/convene/data")


def test_every_setting_is_declared_with_a_help_text(tmp_path: Path) -> None:
    text = '[upstreams.a]\nbase_url = "http://a"\n[models.m]\nhidden = false\n'
    text += "[plans.p]\nrequests_per_day = 1\n[prices.q]\ninput = 1\n[mcp.s]\nurl = 'http://s'\n"
    text += "[images.i]\nbase_url = 'http://i'\n[agent.g]\nurl = 'http://g'\n"
    lines = list(describe(load({}, HOME, with_file(tmp_path, text))))
    config = load({}, HOME, tmp_path)
    sections = nested(config)
    entries = (config.upstreams["a"], config.models["m"], config.plans["p"], config.prices["q"], config.mcp["s"])
    sections += [value for one in sections for value in nested(one)]
    fields = sum(
        len(one.__struct_fields__) for one in (config, *sections, *entries, config.images["i"], config.agent["g"])
    )
    not_settings = {"upstreams", "models", "images", "mcp", "agent", "plans", "prices", "sources", "notices"}
    assert len(lines) == fields - len(sections) - len(not_settings)
    assert all(one.help for one in lines)


def nested(struct: msgspec.Struct) -> list[msgspec.Struct]:
    """Return the sections right within."""
    return [value for value in msgspec.structs.asdict(struct).values() if isinstance(value, msgspec.Struct)]


# Which source wins.


@pytest.mark.req("OPS-22")
def test_flag_beats_environment_beats_dotenv_beats_file_beats_default(tmp_path: Path) -> None:
    file = with_file(tmp_path, "port = 1\n[edge]\nping_s = 1\ngrace_s = 1\nheader_s = 1\n")
    (file / ".env").write_text("CONVENE_PORT=2\nCONVENE_EDGE_PING_S=2\nCONVENE_EDGE_GRACE_S=2\n")
    config = load({"port": "4"}, HOME | {"CONVENE_PORT": "3", "CONVENE_EDGE_PING_S": "3"}, file)
    assert (config.port, config.edge.ping_s, config.edge.grace_s, config.edge.header_s) == (4, 3, 2, 1)
    assert config.edge.first_byte_s == 5
    where = {key: source for key, (_, source) in sources(config).items()}
    assert where["port"] == "flag --port"
    assert where["edge.ping_s"] == "environment CONVENE_EDGE_PING_S"
    assert where["edge.grace_s"] == ".env CONVENE_EDGE_GRACE_S"
    assert where["edge.header_s"] == str(file / "convene.toml")
    assert where["edge.first_byte_s"] == "default"


@pytest.mark.req("OPS-22")
def test_every_plain_setting_has_an_environment_variable(tmp_path: Path) -> None:
    for one in describe(load({}, HOME, tmp_path)):
        variable = "CONVENE_" + one.key.replace(".", "_").upper()
        config = load({}, HOME | {variable: as_typed(one.value)}, tmp_path)
        assert config.notices == ()
        assert sources(config)[one.key] == (one.value, f"environment {variable}")


@pytest.mark.req("OPS-22")
def test_every_plain_setting_has_a_flag(tmp_path: Path) -> None:
    for one in describe(load({}, HOME, tmp_path)):
        assert sources(load({one.key: as_typed(one.value)}, HOME, tmp_path))[one.key][1].startswith("flag --")


def as_typed(shown: str) -> str:
    """Return a value as people type it that `describe` shows with its unit, as JSON, or as a secret that is not set."""
    if shown.startswith("["):
        return ",".join(json.loads(shown))
    return "" if shown == "''" else shown.partition(" ")[0]


def test_the_port_that_hosting_platforms_name_counts_less_than_ours(tmp_path: Path) -> None:
    assert load({}, {"PORT": "9000"}, tmp_path).port == 9000
    assert load({}, {"PORT": "9000", "CONVENE_PORT": "9001"}, tmp_path).port == 9001


def test_the_variables_of_a_kubernetes_service_called_convene_do_no_harm(tmp_path: Path) -> None:
    assert load({}, {"CONVENE_PORT": "tcp://10.0.0.1:8000"}, tmp_path).port == 8000


def test_the_file_is_the_flags_then_the_variables_then_the_folders(tmp_path: Path) -> None:
    with_file(tmp_path, "port = 1")
    with_file(tmp_path, "port = 2", "two.toml")
    with_file(tmp_path, "port = 3", "three.toml")
    assert load({}, {}, tmp_path).port == 1
    assert load({}, {"CONVENE_CONFIG": "two.toml"}, tmp_path).port == 2
    assert load({"config": str(tmp_path / "three.toml")}, {"CONVENE_CONFIG": "two.toml"}, tmp_path).port == 3


def test_a_file_that_is_named_but_missing_is_an_error(tmp_path: Path) -> None:
    assert f"flag --config: there is no file {tmp_path / 'no.toml'}" in refused(tmp_path, config="no.toml")
    assert "environment CONVENE_CONFIG" in refused(tmp_path, "", {"CONVENE_CONFIG": "no.toml"})


def test_a_variable_that_names_no_setting_is_pointed_out(tmp_path: Path) -> None:
    config = load({}, {"CONVENE_LOGLEVEL": "debug", "CONVENE_EDGE_X": "1", "CONVENE_API_KEY": "k"}, tmp_path)
    assert [notice.split()[1] for notice in config.notices] == ["CONVENE_EDGE_X", "CONVENE_LOGLEVEL"]


@pytest.mark.req("OPS-22")
def test_dotenv_knows_quotes_comments_and_export(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\n\nexport CONVENE_HOST = 127.0.0.2 # here\nCONVENE_DEFAULT_MODEL='a # b'\n"
        'CONVENE_PUBLIC_URL="https://a.example/\\"x" # there\nCONVENE_PORT=81\n'
    )
    config = load({}, {}, tmp_path)
    assert (config.host, config.port, config.default_model) == ("127.0.0.2", 81, "a # b")
    assert config.public_url == 'https://a.example/"x'


def test_a_line_of_dotenv_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CONVENE_PORT=1\nwhat is this\n")
    assert f"{tmp_path / '.env'}, line 2" in refused(tmp_path)


# What a wrong one is told.


def test_an_unknown_key_names_the_file_the_key_and_the_nearest_one(tmp_path: Path) -> None:
    message = refused(tmp_path, "[edge]\nping_seconds = 5\n")
    assert str(tmp_path / "convene.toml") in message
    assert "unknown key edge.ping_seconds; did you mean edge.ping_s?" in message


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("prot = 1", "prot", "port"),
        ('[upstream.a]\nbase_url = "http://a"', "upstream", "upstreams"),
        ('[upstreams.a]\nbase_uri = "http://a"', "upstreams.a.base_uri", "upstreams.a.base_url"),
        ("[models.m]\ncontext_windows = 5", "models.m.context_windows", "models.m.context_window"),
        ('sources = "x"', "sources", "prices"),
        ("zzzzzzz = 1", "zzzzzzz", ""),
    ],
)
def test_unknown_keys_anywhere_are_found(tmp_path: Path, text: str, key: str, near: str) -> None:
    message = refused(tmp_path, text)
    assert f"unknown key {key}" in message
    assert f"did you mean {near}?" in message if near else "check-config" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('port = "eighty"', 'port must be a whole number >= 0 and <= 65535, not "eighty"'),
        ("port = 70000", "port must be a whole number >= 0 and <= 65535, not 70000"),
        ("port = 1.5", "port must be a whole number"),
        ("port = true", "port must be a whole number"),
        ("[edge]\nping_s = nan", "edge.ping_s must be a number >= 0.1, in s, not nan"),
        ("[edge]\nping_s = inf", "edge.ping_s must be a number"),
        ("docs = 1", "docs must be true or false, not 1"),
        ('docs = "perhaps"', 'docs must be true or false, not "perhaps"'),
        ('log_level = "loud"', 'log_level must be one of "debug", "info", "warning", "error", not "loud"'),
        ("cors_origins = [1]", "cors_origins must be a list of texts"),
        ("host = 5", "host must be a text, not 5"),
        ("data_dir = 5", "data_dir must be a path, not 5"),
        ("edge = 5", "edge must be a table, as in [edge]"),
        ("[upstreams]\na = 5", "upstreams.a must be a table"),
        ("[upstreams.a]", "[upstreams.a] is empty"),
        ("port = 80\nport = 81", "convene.toml: "),
        ("[models.m]\ntemperature = 3", "models.m.temperature must be a number >= 0 and <= 2, not 3"),
    ],
)
def test_a_wrong_value_names_its_key_and_what_was_expected(tmp_path: Path, text: str, expected: str) -> None:
    message = refused(tmp_path, text)
    assert expected in message
    assert message.startswith(str(tmp_path / "convene.toml"))


def test_a_wrong_flag_or_variable_is_named_as_such(tmp_path: Path) -> None:
    assert refused(tmp_path, port="x").startswith("flag --port: port must be")
    assert refused(tmp_path, "", {"CONVENE_PORT": "x"}).startswith("environment CONVENE_PORT: port must be")
    with pytest.raises(ConfigError, match=r"flag --set edge\.pings: unknown key .* did you mean edge\.ping_s\?"):
        load({"edge.pings": "1"}, {}, tmp_path)
    for text in ("a b", "", "edge", "x = 1\ny"):
        with pytest.raises(ConfigError, match="flag"):
            load({text: "1"}, {}, tmp_path)


def test_texts_spell_numbers_truth_lists_and_nothing(tmp_path: Path) -> None:
    flags = {"docs": "off", "access_log": "YES", "cors_origins": " https://a , https://b ", "edge.ping_s": "2.5"}
    config = load(
        flags | {"models.m.tools": "none", "models.m.vision": "true", "models.m.upstream": "engine"}, {}, tmp_path
    )
    assert (config.docs, config.access_log, config.edge.ping_s) == (False, True, 2.5)
    assert config.cors_origins == ("https://a", "https://b")
    assert (config.models["m"].tools, config.models["m"].vision) == (None, True)


def test_paths_are_relative_to_the_file_they_stand_in_and_know_home(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with_file(tmp_path / "etc", 'data_dir = "data"\ncache_dir = "~/c"\n[scripted]\nfile = "s.toml"', "c.toml")
    config = load({"config": "etc/c.toml"}, HOME, tmp_path)
    assert config.data_dir == tmp_path / "etc" / "data"
    assert config.cache_dir == Path("/home/ada/c")
    assert config.scripted.file == str(tmp_path / "etc" / "s.toml")
    assert load({"data_dir": "d"}, HOME, tmp_path).data_dir == tmp_path / "d"
    assert "HOME is not set" in refused(tmp_path, data_dir="~/d")


# Secrets.


@pytest.mark.req("OPS-23")
def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    text = (
        '[upstreams.a]\nbase_url = "http://a"\napi_key = "hush-1"\nproxy = "http://u:hush-2@p:1"\n'
        'headers = { X-Token = "hush-3" }\n'
    )
    config = load({}, HOME, with_file(tmp_path, text))
    upstream = config.upstreams["a"]
    assert (upstream.api_key.reveal(), upstream.headers["X-Token"].reveal()) == ("hush-1", "hush-3")
    shown = [repr(config), str(config), f"{upstream.api_key}", repr(list(describe(config)))]
    assert not any("hush" in one for one in shown)
    assert sources(config)["upstreams.a.api_key"][0] == "********"
    with pytest.raises(TypeError):
        msgspec.json.encode(upstream)
    with pytest.raises(TypeError):
        pickle.dumps(upstream.api_key)


def test_every_loaded_secret_is_told_once_for_redaction(tmp_path: Path) -> None:
    text = (
        '[upstreams.a]\nbase_url = "http://a"\napi_key = "one"\nproxy = "http://u:two@p:1"\n'
        'headers = { X-Token = "three", X-Same = "one" }\n[upstreams.b]\nbase_url = "http://b"\n'
    )
    assert secrets_of(load({}, HOME, with_file(tmp_path, text))) == ("one", "http://u:two@p:1", "three")


def test_a_secret_is_true_if_there_is_one_and_equal_by_its_text() -> None:
    assert not Secret()
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.req("OPS-23")
def test_a_secret_may_stand_in_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("from-file\n")
    (tmp_path / ".env").write_text("ELSEWHERE=from-dotenv\n")
    text = (
        '[upstreams.a]\nbase_url = "http://a"\napi_key = "env:KEY"\n[upstreams.b]\nbase_url = "http://b"\n'
        'api_key = "file:key.txt"\n[upstreams.c]\nbase_url = "http://c"\napi_key = "env:ELSEWHERE"\n'
    )
    config = load({}, {"KEY": "from-env"}, with_file(tmp_path, text))
    assert [one.api_key.reveal() for one in config.upstreams.values()] == ["from-env", "from-file", "from-dotenv"]


@pytest.mark.req("OPS-23")
def test_the_file_variant_of_a_variable_is_read(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("from-file\n")
    environ = {"CONVENE_UPSTREAMS_ASI_BASE_URL": "http://a/v1", "CONVENE_UPSTREAMS_ASI_API_KEY_FILE": "key.txt"}
    config = load({}, environ, tmp_path)
    assert config.upstreams["asi"].api_key.reveal() == "from-file"
    assert config.notices == ()
    assert load({}, {"CONVENE_PORT_FILE": "key.txt"}, tmp_path).notices


def test_a_secret_that_is_not_there_names_key_and_place_and_no_secret(tmp_path: Path) -> None:
    text = '[upstreams.a]\nbase_url = "http://a"\napi_key = "env:NOWHERE"\n'
    message = refused(tmp_path, text)
    assert "upstreams.a.api_key names the environment variable NOWHERE, which is not set" in message
    text = '[upstreams.a]\nbase_url = "http://a"\napi_key = "file:no.txt"\n'
    assert f"names the file {tmp_path / 'no.txt'}, which cannot be read" in refused(tmp_path, text)
    text = '[upstreams.a]\nbase_url = "http://a"\nheaders = { a = 12345678 }\n'
    assert "12345678" not in refused(tmp_path, text)


# Upstreams and models.


def test_an_upstream_has_exactly_one_of_the_two_addresses(tmp_path: Path) -> None:
    assert "needs exactly one of base_url and base_urls" in refused(tmp_path, '[upstreams.a]\napi_key = "k"')
    both = '[upstreams.a]\nbase_url = "http://a"\nbase_urls = ["http://b"]'
    assert "upstreams.a needs exactly one" in refused(tmp_path, both)


def test_addresses_lose_the_slash_at_their_end(tmp_path: Path) -> None:
    text = '[upstreams.a]\nbase_url = "http://a/v1/"\n[upstreams.b]\nbase_urls = ["http://b", "http://c/"]\n'
    text += "weights = [1, 3]"
    config = load({}, {}, with_file(tmp_path, text))
    assert config.upstreams["a"].urls == ("http://a/v1",)
    assert config.upstreams["b"].urls == ("http://b", "http://c")
    assert config.upstreams["b"].weights == (1, 3)


@pytest.mark.parametrize(
    "url",
    [
        "a.example/v1",
        "ftp://a",
        "http://",
        "http://u:hush@a",
        "http://a?x=1",
        "http://a#x",
        "http://a b",
        "http://a:99999",
    ],
)
def test_an_address_must_be_absolute_and_plain(tmp_path: Path, url: str) -> None:
    message = refused(tmp_path, f'[upstreams.a]\nbase_url = "{url}"')
    assert "upstreams.a.base_url must be absolute" in message
    assert "hush" not in message


def test_weights_fit_their_addresses(tmp_path: Path) -> None:
    start = '[upstreams.a]\nbase_urls = ["http://a", "http://b"]\n'
    assert "upstreams.a.weights needs one number for each" in refused(tmp_path, start + "weights = [1]")
    assert "upstreams.a.weights needs" in refused(tmp_path, start + "weights = [0, 0]")
    assert "list of whole numbers >= 0, not -1" in refused(tmp_path, start + "weights = [2, -1]")


def test_a_proxy_is_an_address(tmp_path: Path) -> None:
    message = refused(tmp_path, '[upstreams.a]\nbase_url = "http://a"\nproxy = "hush:1"')
    assert "upstreams.a.proxy must be http://host:port" in message
    assert "hush" not in message


def test_built_in_upstreams_keep_their_names(tmp_path: Path) -> None:
    assert "built-in" in refused(tmp_path, '[upstreams.engine]\nbase_url = "http://a"')


def test_a_model_names_one_upstream_or_several_that_exist(tmp_path: Path) -> None:
    text = (
        '[upstreams.a]\nbase_url = "http://a"\n[models.one]\nupstream = "a"\n'
        '[models."gpt-4.1"]\nupstream = ["a", "engine"]\nmodel = "other"\n[models.asi1]\nvision = true\n'
    )
    config = load({}, {}, with_file(tmp_path, text))
    assert config.models["one"].upstream == ("a",)
    assert config.models["one"].model == "one"
    assert (config.models["gpt-4.1"].upstream, config.models["gpt-4.1"].model) == (("a", "engine"), "other")
    assert (config.models["asi1"].upstream, config.models["asi1"].vision) == ((), True)
    message = refused(tmp_path, '[models.m]\nupstream = "b"')
    assert "models.m.upstream names 'b', which is not one of: engine, scripted" in message


def test_the_environment_reaches_entries_of_the_file_whatever_their_spelling(tmp_path: Path) -> None:
    with_file(tmp_path, '[upstreams.My-host]\nbase_url = "http://a"\n[models."gpt-4.1"]\nupstream = "My-host"')
    environ = {"CONVENE_UPSTREAMS_MY_HOST_API_KEY": "k", "CONVENE_MODELS_GPT_4_1_CONTEXT_WINDOW": "4096"}
    config = load({}, environ, tmp_path)
    assert config.upstreams["My-host"].api_key.reveal() == "k"
    assert config.models["gpt-4.1"].context_window == 4096
    assert list(config.upstreams) == ["My-host"]


def test_headers_may_come_from_the_environment_as_json(tmp_path: Path) -> None:
    environ = {"CONVENE_UPSTREAMS_A_BASE_URL": "http://a", "CONVENE_UPSTREAMS_A_HEADERS": '{"X-A": "b"}'}
    assert load({}, environ, tmp_path).upstreams["a"].headers == {"X-A": Secret("b")}
    environ["CONVENE_UPSTREAMS_A_HEADERS"] = "hush"
    message = refused(tmp_path, "", environ)
    assert "upstreams.a.headers must be a table of texts" in message
    assert "hush" not in message


# Settings that must fit together.


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_no_authentication_is_for_loopback(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    assert load({"auth": "none", "host": host}, {}, tmp_path).auth == "none"


@pytest.mark.parametrize("host", ["::", "10.0.0.1", "example.org", "127.0.0.1.example.org", ""])
def test_no_authentication_is_refused_elsewhere(tmp_path: Path, host: str) -> None:
    assert not is_loopback(host)
    assert 'auth = "none" needs a loopback host' in refused(tmp_path, auth="none", host=host)


def test_the_public_address_is_absolute(tmp_path: Path) -> None:
    assert "public_url must be an absolute" in refused(tmp_path, public_url="api.example.org")
    assert load({"public_url": "https://api.example.org"}, {}, tmp_path).public_url == "https://api.example.org"


# The names that clients use.


@pytest.mark.req("OPS-24")
@pytest.mark.parametrize("name", ["ASI_ONE_API_KEY", "ASI_API_KEY", "ASI1_API_KEY", "ASI_LLM_KEY", "OPENAI_API_KEY"])
@pytest.mark.parametrize("base", ["ASI_ONE_BASE_URL", "ASI_BASE_URL", "ASI1_BASE_URL", "OPENAI_BASE_URL"])
def test_the_names_users_have_lead_a_client_here(tmp_path: Path, name: str, base: str) -> None:
    found = client_settings({name: "secret", base: "http://127.0.0.1:8000/v1"}, tmp_path)
    assert (found.url, found.key.reveal()) == ("http://127.0.0.1:8000/v1", "secret")


@pytest.mark.req("OPS-24")
def test_a_key_for_another_service_is_not_sent_here_unasked(tmp_path: Path) -> None:
    assert not client_settings({"OPENAI_API_KEY": "sk-other", "ASI_ONE_API_KEY": "sk_other"}, tmp_path).key
    assert client_settings({"ASI_ONE_API_KEY": "convene_x"}, tmp_path).key.reveal() == "convene_x"
    assert client_settings({"CONVENE_API_KEY": "any"}, tmp_path).key.reveal() == "any"


def test_our_own_names_come_first_and_dotenv_counts_for_clients_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CONVENE_API_KEY=mine\nCONVENE_BASE_URL=http://mine\n")
    found = client_settings({"OPENAI_API_KEY": "sk-other", "OPENAI_BASE_URL": "http://other"}, tmp_path)
    assert (found.url, found.key.reveal()) == ("http://mine", "mine")


@pytest.mark.req("OPS-26")
def test_no_color_counts_whatever_its_value_unless_empty(tmp_path: Path) -> None:
    assert client_settings({"NO_COLOR": "0"}, tmp_path).no_color
    assert not client_settings({"NO_COLOR": ""}, tmp_path).no_color
    assert not client_settings({}, tmp_path).no_color


# Plans and prices.


def test_a_plan_in_the_file_changes_single_limits_of_a_built_in_one(tmp_path: Path) -> None:
    config = load(
        {}, HOME, with_file(tmp_path, "[plans.free]\nrequests_per_minute = 7\n[plans.lab]\nbudget_total = 5\n")
    )
    plans = plans_of(config.plans)
    assert plans["free"].requests_per_minute == 7
    assert plans["free"].tokens_per_day == PLANS["free"].tokens_per_day
    assert (plans["lab"].budget_total, plans["lab"].requests_per_minute) == (5.0, None)
    assert plans["owner"] is PLANS["owner"]


@pytest.mark.parametrize("setting", ["limits", "limits_per_key", "price"])
def test_a_model_names_only_plans_and_prices_that_exist(tmp_path: Path, setting: str) -> None:
    assert f"models.m.{setting} names 'nope'" in refused(tmp_path, f'[models.m]\n{setting} = "nope"\n')


def test_the_addresses_of_stores_are_secrets(tmp_path: Path) -> None:
    config = load({}, HOME | {"CONVENE_DATABASE_URL": "postgres://u:pw@db/c"}, tmp_path)
    assert "pw" not in repr(config)
    assert "postgres://u:pw@db/c" in secrets_of(config)


@pytest.mark.parametrize("given", ["flag", "environment", "file"])
def test_the_number_of_workers_can_be_said_in_each_way(tmp_path: Path, given: str) -> None:
    folder = with_file(tmp_path, "workers = 3") if given == "file" else tmp_path
    flags = {"workers": "3"} if given == "flag" else {}
    environ = {"CONVENE_WORKERS": "3"} if given == "environment" else {}
    assert load(flags, HOME | environ, folder).workers == 3


@pytest.mark.parametrize("wrong", ["0", "-1", "65", "many", "1.5"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(tmp_path: Path, wrong: str) -> None:
    assert "workers" in refused(tmp_path, environ=HOME, workers=wrong)


def test_one_process_is_the_default() -> None:
    assert Config().workers == 1


def test_a_default_plan_that_is_none_is_refused_with_those_there_are(tmp_path: Path) -> None:
    assert "default_plan names 'platinum'" in refused(tmp_path, 'default_plan = "platinum"')
    config = load({}, {}, with_file(tmp_path, 'default_plan = "lab"\n[plans.lab]\nrequests_per_minute = 5\n'))
    assert config.default_plan == "lab"


def test_an_mcp_server_is_configured_like_an_upstream(tmp_path: Path) -> None:
    text = """
        [mcp.docs]
        url = "https://docs.test/mcp"
        api_key = "env:DOCS_KEY"
        headers = { x-team = "blue" }
        tools = ["search_*"]
        labels = ["private", "sends"]
    """
    environ = HOME | {"DOCS_KEY": "d0cs", "CONVENE_MCP_DOCS_TIMEOUT_S": "9"}
    config = load({}, environ, with_file(tmp_path, text))
    docs = config.mcp["docs"]
    assert (docs.url, docs.tools, docs.labels) == ("https://docs.test/mcp", ("search_*",), ("private", "sends"))
    assert (docs.timeout_s, docs.enabled) == (9.0, True)
    assert {"d0cs", "blue"} <= set(secrets_of(config))
    assert not {"d0cs", "blue"} & {value for value, _ in sources(config).values()}


def test_labels_of_an_mcp_server_may_be_unset_or_none_at_all(tmp_path: Path) -> None:
    text = '[mcp.a]\nurl = "http://a.test"\n[mcp.b]\nurl = "http://b.test"\nlabels = []\n'
    config = load({}, HOME, with_file(tmp_path, text))
    assert (config.mcp["a"].labels, config.mcp["b"].labels) == (None, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[mcp.a__b]\nurl = "http://a.test"', "mcp.a__b needs a name of at most 32"),
        ('[mcp.a_]\nurl = "http://a.test"', "mcp.a_ needs a name"),
        ('[mcp."a.b"]\nurl = "http://a.test"', "needs a name"),
        (f'[mcp.{"x" * 33}]\nurl = "http://a.test"', "needs a name"),
        ('[mcp.a]\nurl = "a.test/mcp"', "mcp.a.url must be absolute"),
        ("[mcp.a]\nenabled = true", "mcp.a.url must be absolute"),
        ('[mcp.a]\nurl = "http://me:pass@a.test"', "********@a.test"),
        ('[mcp.a]\nurl = "http://a.test"\nlabels = ["public"]', "mcp.a.labels must be"),
        ('[mcp.a]\nurl = "http://a.test"\nproxy = "a.test"', "mcp.a.proxy must be http://host:port"),
        ('[mcp.a]\nurl = "http://a.test"\ncommand = "rm"', "unknown key mcp.a.command"),
    ],
)
def test_an_mcp_server_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused(tmp_path, text)
