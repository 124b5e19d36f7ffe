"""all-MiniLM-L6-v2 from safetensors to GGUF v3: a rewriting of bytes, so that one engine serves chat and embeddings.

Here: reading a safetensors header, the tensor and metadata tables of a BERT encoder, writing a GGUF file. Not here:
where the bytes come from and what their digests are (`files`, `catalogue`). No numpy: `struct` halves floats by the
same round-to-nearest-even rule.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from convene.engine.base import WeightsCorrupt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
TENSOR_F32, TENSOR_F16 = 0, 1
TOKEN_NORMAL, TOKEN_CONTROL = 1, 3
POOLING_MEAN = 1
CONTROL_WORDS = frozenset({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
SCORE = -1000.0
CHUNK_FLOATS = 1 << 16


class Array(msgspec.Struct, frozen=True):
    """A metadata array: GGUF type of its elements, and the elements."""

    kind: int
    elements: list[str] | list[int] | list[float]


Value = tuple[int, str | float | bool | Array]
"""A metadata value: GGUF type and content."""

LAYER_PARTS: tuple[tuple[str, str, bool], ...] = (
    ("attn_q", "attention.self.query", True),
    ("attn_k", "attention.self.key", True),
    ("attn_v", "attention.self.value", True),
    ("attn_output", "attention.output.dense", True),
    ("attn_output_norm", "attention.output.LayerNorm", False),
    ("ffn_up", "intermediate.dense", True),
    ("ffn_down", "output.dense", True),
    ("layer_output_norm", "output.LayerNorm", False),
)
"""Name in GGUF, name in safetensors, and whether its weight (never its bias) is halved."""


class BertConfig(msgspec.Struct):
    """What of `config.json` goes into the file."""

    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float
    type_vocab_size: int


class SourceTensor(msgspec.Struct):
    """One entry of a safetensors header; offsets count from the header's end."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Planned(msgspec.Struct):
    name: str
    source: SourceTensor
    halved: bool

    @property
    def size(self) -> int:
        """Bytes it takes in the result, without padding."""
        size = self.source.data_offsets[1] - self.source.data_offsets[0]
        return size // 2 if self.halved else size


def convert_bert(weights: memoryview, config: bytes, vocabulary: bytes, out: BinaryIO, *, halve: bool = True) -> None:
    """Write the encoder as GGUF.

    Args:
        weights: the whole safetensors file.
        config: its `config.json`.
        vocabulary: its `vocab.txt`, one WordPiece word a line.
        out: where the result goes, from its present position.
        halve: f16 for the large matrices (46 MB in place of 91, cosine above 0.99999 either way).

    Raises:
        WeightsCorrupt: if the parts do not fit each other.
    """
    try:
        bert = msgspec.json.decode(config, type=BertConfig)
        tensors, data = read_safetensors(weights)
        planned = [_Planned(name, tensors[source], halved and halve) for name, source, halved in list_tensors(bert)]
        words = vocabulary.decode("utf-8").splitlines()
    except (msgspec.MsgspecError, KeyError, ValueError, struct.error) as error:
        raise WeightsCorrupt(
            "The embedding model's files are not those of a BERT encoder.", detail=repr(error)
        ) from error
    if any(plan.source.dtype != "F32" for plan in planned):
        raise WeightsCorrupt("The embedding model's tensors are not 32-bit floats.")
    write_gguf(build_metadata(bert, words, halve=halve), planned, data, out)


def read_safetensors(whole: memoryview) -> tuple[dict[str, SourceTensor], memoryview]:
    """Split a safetensors file into its table and its data.

    Raises:
        ValueError: if the file ends early. msgspec's errors: if the table is not one.
    """
    (length,) = struct.unpack_from("<Q", whole)
    table = msgspec.json.decode(bytes(whole[8 : 8 + length]), type=dict[str, msgspec.Raw])
    tensors = {
        name: msgspec.json.decode(entry, type=SourceTensor) for name, entry in table.items() if name != "__metadata__"
    }
    data = whole[8 + length :]
    if any(not 0 <= t.data_offsets[0] <= t.data_offsets[1] <= len(data) for t in tensors.values()):
        raise ValueError("a tensor lies outside the file")
    return tensors, data


def list_tensors(bert: BertConfig) -> list[tuple[str, str, bool]]:
    """List (name in GGUF, name in safetensors, halved) in file order; pooler and position ids are left out."""
    tensors = [
        ("token_embd.weight", "embeddings.word_embeddings.weight", True),
        ("position_embd.weight", "embeddings.position_embeddings.weight", True),
        ("token_types.weight", "embeddings.token_type_embeddings.weight", False),
        ("token_embd_norm.weight", "embeddings.LayerNorm.weight", False),
        ("token_embd_norm.bias", "embeddings.LayerNorm.bias", False),
    ]
    for layer in range(bert.num_hidden_layers):
        for name, source, halved in LAYER_PARTS:
            prefix = f"encoder.layer.{layer}.{source}"
            tensors.append((f"blk.{layer}.{name}.weight", f"{prefix}.weight", halved))
            tensors.append((f"blk.{layer}.{name}.bias", f"{prefix}.bias", False))
    return tensors


def build_metadata(bert: BertConfig, words: Sequence[str], *, halve: bool) -> dict[str, Value]:
    """Give the 25 metadata entries llama.cpp wants of a BERT encoder with mean pooling."""
    spelled, kinds = spell_words(words)
    place = {word: index for index, word in enumerate(words)}
    return {
        "general.architecture": (STRING, "bert"),
        "general.name": (STRING, "all-MiniLM-L6-v2"),
        "general.license": (STRING, "apache-2.0"),
        "general.file_type": (U32, TENSOR_F16 if halve else TENSOR_F32),
        "general.alignment": (U32, ALIGNMENT),
        "bert.context_length": (U32, bert.max_position_embeddings),
        "bert.embedding_length": (U32, bert.hidden_size),
        "bert.feed_forward_length": (U32, bert.intermediate_size),
        "bert.block_count": (U32, bert.num_hidden_layers),
        "bert.attention.head_count": (U32, bert.num_attention_heads),
        "bert.attention.layer_norm_epsilon": (F32, bert.layer_norm_eps),
        "bert.attention.causal": (BOOL, False),
        "bert.pooling_type": (U32, POOLING_MEAN),
        "tokenizer.ggml.model": (STRING, "bert"),
        "tokenizer.ggml.token_type_count": (U32, bert.type_vocab_size),
        "tokenizer.ggml.tokens": (ARRAY, Array(STRING, spelled)),
        "tokenizer.ggml.token_type": (ARRAY, Array(I32, kinds)),
        "tokenizer.ggml.scores": (ARRAY, Array(F32, [SCORE] * len(words))),
        "tokenizer.ggml.bos_token_id": (U32, place.get("[CLS]", 0)),
        "tokenizer.ggml.cls_token_id": (U32, place.get("[CLS]", 0)),
        "tokenizer.ggml.eos_token_id": (U32, place.get("[SEP]", 0)),
        "tokenizer.ggml.seperator_token_id": (U32, place.get("[SEP]", 0)),  # llama.cpp spells it so
        "tokenizer.ggml.unknown_token_id": (U32, place.get("[UNK]", 0)),
        "tokenizer.ggml.padding_token_id": (U32, place.get("[PAD]", 0)),
        "tokenizer.ggml.mask_token_id": (U32, place.get("[MASK]", 0)),
    }


def spell_words(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Respell WordPiece the way llama.cpp wants it: continuations lose `##`, beginnings gain U+2581."""
    spelled, kinds = [], []
    for word in words:
        control = word in CONTROL_WORDS
        kinds.append(TOKEN_CONTROL if control else TOKEN_NORMAL)
        if control:
            spelled.append(word)
        else:
            spelled.append(word[2:] if word.startswith("##") else "\u2581" + word)
    return spelled, kinds


def write_gguf(metadata: Mapping[str, Value], tensors: Sequence[_Planned], data: memoryview, out: BinaryIO) -> None:
    """Write header, metadata, tensor table and padded data."""
    head = bytearray(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _pack_string(key) + _pack_value(value)
    offset = 0
    for tensor in tensors:
        shape = tensor.source.shape[::-1]
        kind = TENSOR_F16 if tensor.halved else TENSOR_F32
        head += _pack_string(tensor.name)
        head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += tensor.size + _count_padding(tensor.size)
    out.write(head + bytes(_count_padding(len(head))))
    for tensor in tensors:
        begin, end = tensor.source.data_offsets
        if tensor.halved:
            _write_halved(data[begin:end], out)
        else:
            out.write(data[begin:end])
        out.write(bytes(_count_padding(tensor.size)))


def _write_halved(floats: memoryview, out: BinaryIO) -> None:
    step = CHUNK_FLOATS * 4
    for begin in range(0, len(floats), step):
        chunk = floats[begin : begin + step]
        count = len(chunk) // 4
        out.write(struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", chunk)))


def _pack_value(value: Value) -> bytes:
    kind, content = value
    if not isinstance(content, Array):
        return struct.pack("<I", kind) + _pack_plain(kind, content)
    packed = b"".join(_pack_plain(content.kind, element) for element in content.elements)
    return struct.pack("<IIQ", ARRAY, content.kind, len(content.elements)) + packed


def _pack_plain(kind: int, content: str | float) -> bytes:
    if kind == STRING:
        return _pack_string(str(content))
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], content)


def _pack_string(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


def _count_padding(size: int) -> int:
    return -size % ALIGNMENT
