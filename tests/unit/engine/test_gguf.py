"""The GGUF writer, read back with a small reader of our own: tables, alignment, vocabulary, rounding."""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

import msgspec
import pytest

from convene.engine.base import WeightsCorrupt
from convene.engine.gguf import BertConfig, convert_bert, list_tensors, read_safetensors, spell_words

HIDDEN, INNER, WORDS, LAYERS = 4, 6, 7, 2
CONFIG = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "max_position_embeddings": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": LAYERS,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "model_type": "bert",
}
VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##ly\n"


class Tensor(NamedTuple):
    """A tensor as the reader sees it."""

    shape: tuple[int, ...]
    kind: int
    data: bytes


def shape_of(source: str) -> list[int]:
    rows = {"word": WORDS, "position": 8, "token_type": 2}
    for word, count in rows.items():
        if source == f"embeddings.{word}_embeddings.weight":
            return [count, HIDDEN]
    if "LayerNorm" in source:
        return [HIDDEN]
    out, into = (INNER, HIDDEN) if "intermediate" in source else (HIDDEN, HIDDEN)
    if source.endswith("output.dense.weight") and "attention" not in source:
        into = INNER
    return [out] if source.endswith("bias") else [out, into]


def write_safetensors(leave_out: str = "", dtype: str = "F32") -> bytes:
    """A whole small encoder; every value is its place in the file divided by 7, so that none is a round number."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    config = msgspec.convert(CONFIG, BertConfig)
    sources = [source for _, source, _ in list_tensors(config) if source != leave_out]
    for source in [*sources, "pooler.dense.weight"]:
        shape = shape_of(source) if source != "pooler.dense.weight" else [HIDDEN, HIDDEN]
        count = 1
        for dimension in shape:
            count *= dimension
        begin = len(data)
        data += struct.pack(f"<{count}f", *((begin + index) / 7 for index in range(count)))
        table[source] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
    head = msgspec.json.encode(table)
    return struct.pack("<Q", len(head)) + head + data


def convert(*, halve: bool = True, weights: bytes | None = None, config: bytes = msgspec.json.encode(CONFIG)) -> bytes:
    out = io.BytesIO()
    convert_bert(memoryview(weights or write_safetensors()), config, VOCABULARY.encode(), out, halve=halve)
    return out.getvalue()


class Reader:
    """GGUF v3, from its specification and not from our writer."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def take(self, form: str) -> tuple[object, ...]:
        values = struct.unpack_from(f"<{form}", self.content, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def number(self, form: str) -> int:
        (value,) = self.take(form)
        assert isinstance(value, int)
        return value

    def text(self) -> str:
        length = self.number("Q")
        self.place += length
        return self.content[self.place - length : self.place].decode()

    def value(self, kind: int) -> object:
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take({4: "I", 5: "i", 6: "f", 7: "?"}[kind])[0]

    def read(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        assert self.content[:4] == b"GGUF"
        self.place = 4
        version, tensor_count, entry_count = self.number("I"), self.number("Q"), self.number("Q")
        assert version == 3
        metadata = {self.text(): self.value(self.number("I")) for _ in range(entry_count)}
        table = []
        for _ in range(tensor_count):
            name, dimensions = self.text(), self.number("I")
            shape = tuple(self.number("Q") for _ in range(dimensions))
            table.append((name, shape, self.number("I"), self.number("Q")))
        start = -(-self.place // 32) * 32
        tensors = {}
        for name, shape, kind, offset in table:
            assert offset % 32 == 0
            size = 2 if kind == 1 else 4
            for dimension in shape:
                size *= dimension
            tensors[name] = Tensor(shape, kind, self.content[start + offset : start + offset + size])
            assert len(tensors[name].data) == size
        return metadata, tensors


def test_every_tensor_of_the_encoder_is_there_and_nothing_else() -> None:
    _, tensors = Reader(convert()).read()
    assert len(tensors) == 5 + 16 * LAYERS
    assert not [name for name in tensors if "pool" in name]
    assert {"token_embd.weight", "token_types.weight", "blk.1.ffn_down.bias", "blk.0.layer_output_norm.weight"} <= set(
        tensors
    )


def test_the_real_encoder_has_101_tensors_and_25_metadata_entries() -> None:
    config = BertConfig(
        hidden_size=384,
        intermediate_size=1536,
        max_position_embeddings=512,
        num_attention_heads=12,
        num_hidden_layers=6,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
    )
    assert len(list_tensors(config)) == 101
    metadata, _ = Reader(convert()).read()
    assert len(metadata) == 25


def test_dimensions_are_written_in_reversed_order() -> None:
    _, tensors = Reader(convert()).read()
    assert tensors["token_embd.weight"].shape == (HIDDEN, WORDS)
    assert tensors["blk.0.ffn_up.weight"].shape == (HIDDEN, INNER)
    assert tensors["blk.0.ffn_up.bias"].shape == (INNER,)


def test_large_matrices_are_halved_and_biases_and_norms_are_not() -> None:
    _, tensors = Reader(convert()).read()
    halved = {name for name, tensor in tensors.items() if tensor.kind == 1}
    assert halved == {"token_embd.weight", "position_embd.weight"} | {
        f"blk.{layer}.{part}.weight"
        for layer in range(LAYERS)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    }


def test_halved_values_are_the_nearest_ones() -> None:
    content = write_safetensors()
    sources, data = read_safetensors(memoryview(content))
    begin, end = sources["embeddings.position_embeddings.weight"].data_offsets
    exact = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
    _, tensors = Reader(convert(weights=content)).read()
    rounded = struct.unpack(f"<{len(exact)}e", tensors["position_embd.weight"].data)
    for value, near in zip(exact, rounded, strict=True):
        assert near == pytest.approx(value, rel=2**-11)


def test_without_halving_every_tensor_is_a_copy_of_its_source() -> None:
    content = write_safetensors()
    sources, data = read_safetensors(memoryview(content))
    metadata, tensors = Reader(convert(halve=False, weights=content)).read()
    assert metadata["general.file_type"] == 0
    for name, source, _ in list_tensors(msgspec.convert(CONFIG, BertConfig)):
        begin, end = sources[source].data_offsets
        assert tensors[name].data == data[begin:end].tobytes(), name


def test_words_are_respelled_for_the_engine() -> None:
    spelled, kinds = spell_words(["[PAD]", "[unused1]", "hello", "##ly", "##", "[MASK]"])
    assert spelled == ["[PAD]", "\u2581[unused1]", "\u2581hello", "ly", "", "[MASK]"]
    assert kinds == [3, 1, 1, 1, 1, 3]


def test_metadata_says_what_the_configuration_says() -> None:
    metadata, _ = Reader(convert()).read()
    assert metadata["general.architecture"] == "bert"
    assert metadata["general.file_type"] == 1
    assert metadata["bert.context_length"] == 8
    assert metadata["bert.embedding_length"] == HIDDEN
    assert metadata["bert.feed_forward_length"] == INNER
    assert metadata["bert.block_count"] == LAYERS
    assert metadata["bert.attention.causal"] is False
    assert metadata["bert.attention.layer_norm_epsilon"] == pytest.approx(1e-12)
    assert metadata["bert.pooling_type"] == 1
    assert metadata["tokenizer.ggml.tokens"] == [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *("\u2581hello", "ly"),
    ]
    assert metadata["tokenizer.ggml.scores"] == [-1000.0] * WORDS


def test_special_words_are_found_in_the_vocabulary() -> None:
    metadata, _ = Reader(convert()).read()
    places = {
        key.removeprefix("tokenizer.ggml.").removesuffix("_token_id"): value
        for key, value in metadata.items()
        if key.endswith("_token_id")
    }
    assert places == {"bos": 2, "cls": 2, "eos": 3, "seperator": 3, "unknown": 1, "padding": 0, "mask": 4}


def test_the_same_input_gives_the_same_bytes() -> None:
    assert convert() == convert()


def test_a_missing_tensor_is_refused() -> None:
    with pytest.raises(WeightsCorrupt, match="BERT"):
        convert(weights=write_safetensors(leave_out="encoder.layer.1.output.dense.bias"))


def test_another_number_format_is_refused() -> None:
    with pytest.raises(WeightsCorrupt, match="32-bit"):
        convert(weights=write_safetensors(dtype="F16"))


@pytest.mark.parametrize("length", [0, 4, 20, 400, -5])
def test_a_file_cut_short_is_refused(length: int) -> None:
    whole = write_safetensors()
    with pytest.raises(WeightsCorrupt):
        convert(weights=whole[:length] or b"\0")


def test_a_configuration_of_something_else_is_refused() -> None:
    with pytest.raises(WeightsCorrupt):
        convert(config=b'{"model_type": "llama"}')
