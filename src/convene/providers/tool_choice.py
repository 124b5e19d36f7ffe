"""Choosing a function by meaning: the request's vector against each tool's. No keyword list, no generation.

A 135M-parameter model picks the right one of five tools in 2 of 20 tries; the similarity of sentence vectors picks it
in 18 to 20 (engine.md 7.1). So the embedded chat model only fills in arguments, and this module says for which
function, or for none. Called by `local_tools`; the vectors come from whatever `EmbeddingModel` is handed in.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import OrderedDict
from operator import mul
from typing import TYPE_CHECKING, NamedTuple

from convene.messages import sentences_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import FunctionTool
    from convene.providers.base import EmbeddingModel

THRESHOLD = 0.20
"""Below this similarity no function is meant: 36 of 40 calls right and 1 false call in 20 chats (engine.md 7.2)."""

EACH_THRESHOLD = 0.35
"""From this similarity on a sentence of its own means a function beside another's. By the sets of
`tests/process/test_local_calls.py`: of 12 requests for two functions 9 called both and no third, and of 15 with one
function and chat around it 12 called that one alone, 13 as one text."""

SENTENCES_MAX = 16
"""Sentences of a request that are looked at one by one."""

VECTORS_MAX = 1024
"""Tool vectors kept (1.5 kB each); OpenAI allows 128 tools a request."""

TEXT_CHARS_MAX = 1000
"""The embedding model reads 256 tokens; more of a description is not worth the tokenizer's time."""


class Scored(NamedTuple):
    """A tool and the cosine of its text with the request, -1 to 1."""

    tool: FunctionTool
    similarity: float


class Meant(NamedTuple):
    """A tool, and the part of the request that asks for it."""

    tool: FunctionTool
    request: str


def describe_tool(tool: FunctionTool) -> str:
    """Return the text that stands for a tool: its name as words, and its description."""
    words = _split_name(tool.name)
    return (f"{words}: {tool.description}" if tool.description else words)[:TEXT_CHARS_MAX]


def _split_name(name: str) -> str:
    """Return `get_weather`, `get-weather` and `getWeather` as words."""
    pieces: list[str] = []
    for letter, before in zip(name, "_" + name, strict=False):
        if letter in "_-.":
            pieces.append(" ")
        elif letter.isupper() and before.islower():
            pieces.append(" " + letter.lower())
        else:
            pieces.append(letter)
    return " ".join("".join(pieces).split())


def normalise_vector(vector: Sequence[float]) -> array[float]:
    """Return the vector with length 1 as 32-bit floats; a zero vector stays zero."""
    length = math.hypot(*vector)
    if 0 < length < sys.float_info.min:  # below it floats have too few digits to divide by
        vector = [x / sys.float_info.min for x in vector]
        length = math.hypot(*vector)
    return array("f", [x / length for x in vector] if length else vector)


class ToolChooser:
    """Ranks tools for a request; keeps the vectors of tools it has seen."""

    def __init__(
        self, embeddings: EmbeddingModel, *, threshold: float = THRESHOLD, vectors_max: int = VECTORS_MAX
    ) -> None:
        self._embeddings = embeddings
        self._threshold = threshold
        self._vectors_max = vectors_max
        self._vectors: OrderedDict[str, array[float]] = OrderedDict()

    async def choose(self, request: str, tools: Sequence[FunctionTool], *, must: bool) -> FunctionTool | None:
        """Return the tool that the request asks for.

        Args:
            request: what the user said last.
            tools: those that may be called.
            must: one has to be called (`tool_choice` required): the best one then, however unlike.

        Raises:
            UpstreamFault: the embedding model cannot serve.
        """
        if not tools:
            return None
        if must and len(tools) == 1:
            return tools[0]
        best = (await self.rank(request, tools))[0]
        return best.tool if must or best.similarity >= self._threshold else None

    async def choose_each(self, request: str, tools: Sequence[FunctionTool]) -> list[Meant]:
        """Return the tools that the request asks for, each with the sentences that ask for it.

        Several only if different sentences clearly mean different ones; else the one that the request as a whole means
        most, with all of it, or none.

        Raises:
            UpstreamFault: the embedding model cannot serve.
        """
        if not tools:
            return []
        sentences = sentences_of(request)[:SENTENCES_MAX]
        first, *others = await self._rank_all([request, *sentences] if len(sentences) > 1 else [request], tools)
        each: dict[str, tuple[FunctionTool, list[str]]] = {}
        for sentence, ranked in zip(sentences, others, strict=False):
            if ranked[0].similarity >= EACH_THRESHOLD:
                each.setdefault(ranked[0].tool.name, (ranked[0].tool, []))[1].append(sentence)
        if len(each) > 1:
            return [Meant(tool, " ".join(asked)) for tool, asked in each.values()]
        return [Meant(first[0].tool, request)] if first[0].similarity >= self._threshold else []

    async def rank(self, request: str, tools: Sequence[FunctionTool]) -> list[Scored]:
        """Return the tools with their similarities, the best first; equals keep their order."""
        [ranked] = await self._rank_all([request], tools)
        return ranked

    async def _rank_all(self, requests: Sequence[str], tools: Sequence[FunctionTool]) -> list[list[Scored]]:
        """Rank the tools for each of some texts, with one call of the embedding model."""
        texts = [describe_tool(tool) for tool in tools]
        missing = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        found = await self._embeddings.embed([*requests, *missing])
        wanted = [normalise_vector(vector) for vector in found.vectors[: len(requests)]]
        fresh = dict(zip(missing, map(normalise_vector, found.vectors[len(requests) :]), strict=True))
        known = {text: fresh[text] if text in fresh else self._vectors[text] for text in texts}
        self._keep(known)
        pairs = list(zip(tools, texts, strict=True))
        scored = ([Scored(tool, sum(map(mul, vector, known[text]))) for tool, text in pairs] for vector in wanted)
        return [sorted(one, key=lambda each: -each.similarity) for one in scored]

    def _keep(self, known: dict[str, array[float]]) -> None:
        for text, vector in known.items():
            self._vectors[text] = vector
            self._vectors.move_to_end(text)
        while len(self._vectors) > self._vectors_max:
            self._vectors.popitem(last=False)
