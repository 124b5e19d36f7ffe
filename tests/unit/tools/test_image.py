"""The tool that draws: what it is told, what it tells, and what goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.errors import BadRequest, ConveneError, Failed, RateLimited, Retry, Unavailable
from convene.tools.base import ToolContext
from convene.tools.image import ALT_CHARS, Drawing, GenerateImage, Wish

if TYPE_CHECKING:
    from convene.tools.base import ToolResult

LINK = "https://convene.test/v1/images/files/a.png?expires=1&signature=0"
CONTEXT = ToolContext(owner="ada", key_id="k", run_id="run_1", call_id="c", idempotency_key="run_1:s1:1")


async def run(arguments: dict[str, object], fault: ConveneError | None = None) -> tuple[ToolResult, Wish]:
    wishes: list[Wish] = []

    async def draw(wish: Wish, context: ToolContext) -> Drawing:
        assert context.key_id == "k"
        wishes.append(wish)
        if fault is not None:
            raise fault
        return Drawing(link=LINK, model="painter", width=8, height=6, format="png", seed=3)

    return await GenerateImage(draw, ["256x256"], 60.0).run(arguments, CONTEXT), wishes[0]


async def test_the_answer_is_told_the_very_line_that_shows_the_picture() -> None:
    result, wish = await run({"prompt": "a fox", "size": "256x256"})
    assert wish == Wish(prompt="a fox", size="256x256")
    assert result.text.endswith(f"![a fox]({LINK})")
    assert result.links == (LINK,)
    assert result.data == {"link": LINK, "model": "painter", "width": 8, "height": 6, "format": "png", "seed": 3}


async def test_a_size_is_the_models_own_unless_one_is_named() -> None:
    assert (await run({"prompt": "a fox"}))[1].size == "auto"


async def test_a_description_cannot_end_the_brackets_it_stands_in() -> None:
    result, _ = await run({"prompt": "x](http://evil.test)![y\n`<img>" + "z" * 500})
    line = result.text.splitlines()[-1]
    assert line.count("](") == 1
    assert line.startswith("![x http://evil.test y img zzz")
    assert len(line) < ALT_CHARS + len(LINK) + 10


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(BadRequest("no such size"), Retry), (RateLimited("slow down"), Failed), (Unavailable("away"), Failed)],
)
async def test_what_the_model_may_mend_is_told_apart_from_what_it_may_not(
    fault: ConveneError, kind: type[ConveneError]
) -> None:
    with pytest.raises(kind, match=fault.message):
        await run({"prompt": "a fox"}, fault)


def test_only_sizes_that_exist_may_be_asked_for() -> None:
    async def draw(wish: Wish, context: ToolContext) -> Drawing:
        raise AssertionError((wish, context))

    spec = GenerateImage(draw, ["256x256"], 60.0).spec
    properties = spec.parameters["properties"]
    assert isinstance(properties, dict)
    assert properties["size"]["enum"] == ["auto", "256x256"]
    assert (spec.kind, spec.timeout_s) == ("tool", 60.0)
