"""Which models a configuration makes: defaults and their aliases, additions, replacements, and what cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convene.app_models import DEFAULT_NAMES, EMBEDDING_NAME, Deployments
from convene.config import Config, ConfigError, Engine, Model, Scripted, Secret, Upstream
from convene.errors import NotFound
from convene.providers.fallback import Fallback
from convene.serving.base import Principal
from convene.serving.catalog import Catalog
from fakes import FakeClock
from unit.providers.upstream_doubles import FakeClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from convene.http.client import ClientOptions

    Deploy = Callable[..., Deployments]

WHO = Principal(key_id="k", owner="o")
UP = {"up": Upstream(base_url="http://up.test/v1")}
OFF = Engine(enabled=False)


class Net:
    """Makes clients that reach nobody, and remembers how each was wanted."""

    def __init__(self) -> None:
        self.options: list[ClientOptions] = []

    def connect(self, options: ClientOptions) -> FakeClient:
        self.options.append(options)
        return FakeClient()


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    """Return a function from configuration fields to deployments."""

    def make(net: Net | None = None, **fields: Any) -> Deployments:  # noqa: ANN401 - fields of Config, each of its own type
        config = Config(data_dir=tmp_path, cache_dir=tmp_path, **fields)
        return Deployments(config, FakeClock(), (net or Net()).connect)

    return make


@pytest.mark.req("MODEL-02", "DEC-05", "OAI-62")
def test_by_default_the_embedded_model_answers_to_every_current_and_former_name(deploy: Deploy) -> None:
    catalog = Catalog(deploy().all)
    names = [name for name, _ in DEFAULT_NAMES] + [alias for _, aliases in DEFAULT_NAMES for alias in aliases]
    assert set(names) == {
        "asi1", "asi1-mini", "asi1-ultra", "asi1-fast", "asi1-extended", "asi1-agentic", "asi1-fast-agentic",
        "asi1-extended-agentic", "asi1-graph",
    }  # fmt: skip
    for name in names:
        assert catalog.chat(name, WHO).card.upstream == "embedded"
    assert catalog.chat("asi1-fast", WHO).card.id == "asi1-mini"
    assert catalog.chat("asi1-extended", WHO).card.id == "asi1-ultra"
    assert catalog.embedding(EMBEDDING_NAME, WHO).card.dimensions == 384


@pytest.mark.req("MODEL-06")
@pytest.mark.parametrize("name", ["asi1-preview", "asi1-turbo", "asi1-pro", "asi1-large", "asi1-thinking"])
def test_names_that_others_guess_are_unknown(deploy: Deploy, name: str) -> None:
    with pytest.raises(NotFound):
        Catalog(deploy().all).chat(name, WHO)


@pytest.mark.req("MODEL-05")
def test_cards_show_the_limits_of_the_engine_in_use(deploy: Deploy) -> None:
    deployments = deploy(engine=Engine(context_per_slot=4096))
    card = Catalog(deployments.all).card("asi1", WHO)
    assert card.capabilities is not None
    assert card.capabilities.context_window == 4096
    assert "smoke-test model" in card.notes


def test_a_configured_model_replaces_the_default_and_keeps_its_aliases(deploy: Deploy) -> None:
    deployments = deploy(upstreams=UP, models={"asi1": Model(upstream=("up",), model="far", aliases=("extra",))})
    catalog = Catalog(deployments.all)
    for name in ("asi1", "asi1-agentic", "asi1-graph", "extra"):
        found = catalog.chat(name, WHO)
        assert (found.card.upstream, found.card.target, found.chat.upstream) == ("up", "far", "up")
    assert catalog.chat("asi1-mini", WHO).card.upstream == "embedded"


def test_several_upstreams_of_a_model_are_tried_in_order(deploy: Deploy) -> None:
    upstreams = UP | {"spare": Upstream(base_url="http://spare.test/v1")}
    deployments = deploy(engine=OFF, upstreams=upstreams, models={"m": Model(upstream=("up", "spare"))})
    found = Catalog(deployments.all).chat("m", WHO)
    assert isinstance(found.chat, Fallback)
    assert found.card.upstream == "up"


def test_a_model_without_an_upstream_takes_the_only_one_or_the_engine(deploy: Deploy) -> None:
    assert Catalog(deploy(upstreams=UP, models={"m": Model()}).all).chat("m", WHO).card.upstream == "up"
    assert Catalog(deploy(models={"m": Model()}).all).chat("m", WHO).card.upstream == "engine"
    two = UP | {"other": Upstream(base_url="http://other.test/v1")}
    with pytest.raises(ConfigError, match=r"models\.m: set upstream, one of other, up"):
        deploy(upstreams=two, models={"m": Model()})
    with pytest.raises(ConfigError, match=r"models\.m: set upstream"):
        deploy(engine=OFF, models={"m": Model()})


def test_the_engine_switched_off_cannot_be_named(deploy: Deploy) -> None:
    with pytest.raises(ConfigError, match="switched off"):
        deploy(engine=OFF, models={"m": Model(upstream=("engine",))})
    with pytest.raises(ConfigError, match="are off"):
        deploy(engine=OFF, models={"m": Model(upstream=("engine",), embeddings=True)})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scripted": Scripted(enabled=True, file="/nowhere/script.toml")}, r"scripted\.file: .*/nowhere/script\.toml"),
        ({"models": {"m": Model(upstream=("scripted",), model="nope")}}, "no scripted model 'nope'.*scripted.enabled"),
        (
            {"upstreams": {"up": Upstream(base_url="https://up.test/v1", ca_file="/nowhere.pem")}},
            r"upstreams\.up\.ca_file",
        ),
    ],
)
def test_what_cannot_be_composed_is_said_with_its_setting(deploy: Deploy, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        deploy(engine=OFF, **fields)


def test_a_host_of_weight_0_gets_nothing(deploy: Deploy) -> None:
    urls = ("http://a.test/v1", "http://b.test/v1")
    deployments = deploy(upstreams={"up": Upstream(base_urls=urls, weights=(1, 0))}, models={"m": Model()})
    assert deployments.hosts["up"].base_urls == ("http://a.test/v1",)


def test_what_the_configuration_says_of_a_model_goes_before_what_is_assumed(deploy: Deploy) -> None:
    model = Model(upstream=("up",), vision=False, context_window=10, temperature=0.0, logprobs=False)
    found = Catalog(deploy(engine=OFF, upstreams=UP, models={"m": model}).all).chat("m", WHO)
    assert found.card.capabilities is found.chat.capabilities
    can = found.chat.capabilities
    assert (can.vision, can.context_window, can.temperature, can.logprobs, can.tools) == (False, 10, 0.0, False, True)


def test_embeddings_may_come_from_an_upstream_or_a_script(deploy: Deploy) -> None:
    models = {
        "far": Model(upstream=("up",), embeddings=True, dimensions=12),
        "near": Model(upstream=("scripted",), embeddings=True, aliases=("text-embedding-3-small",)),
    }
    catalog = Catalog(deploy(engine=OFF, upstreams=UP, models=models).all)
    assert catalog.embedding("far", WHO).card.dimensions == 12
    assert catalog.embedding("text-embedding-3-small", WHO).embedding.upstream == "scripted"
    assert [card.id for card in catalog.cards(WHO)] == ["far", "near", "text-embedding-3-small"]


def test_scripted_models_are_there_only_when_switched_on(deploy: Deploy) -> None:
    assert not any(name.startswith("scripted") for name in Catalog(deploy(engine=OFF).all).readiness())
    on = Catalog(deploy(engine=OFF, scripted=Scripted(enabled=True)).all)
    assert {"scripted-echo", "scripted-fail-after"} <= set(on.readiness())


async def test_each_upstream_has_its_own_client_with_its_limits_and_all_are_closed(
    deploy: Deploy, tmp_path: Path
) -> None:
    net, ca_file = Net(), tmp_path / "ca.pem"
    ca_file.write_text("")
    proxy = Secret("http://proxy.test:1")
    upstream = Upstream(base_url="http://up.test", connections_max=3, proxy=proxy, ca_file=str(ca_file))
    models = {name: Model(upstream=("up",)) for name in ("a", "b")}
    deployments = deploy(net, engine=OFF, upstreams={"up": upstream}, models=models)
    assert [options.connections_per_origin_max for options in net.options][:1] == [3]
    assert (net.options[0].http_proxy, net.options[0].https_proxy) == ("http://proxy.test:1", "http://proxy.test:1")
    assert net.options[0].ca_file == str(ca_file)
    assert len(net.options) == 2
    await deployments.aclose()
