"""Writes a pipeline of random weights, small enough for a test, in the form that real ones have.

    python tests/images/tiny_pipeline.py FOLDER

Run by an interpreter that has torch and diffusers. It is a Stable Diffusion with every part in miniature: what it draws
is noise, but it is loaded, asked and interrupted by the same code as any other.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 32


def byte_characters() -> list[str]:
    """Return the characters that stand for the 256 bytes in CLIP's vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in shown] + [chr(256 + at) for at in range(256 - len(shown))]


def make_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer that knows single bytes only, so any text will do."""
    words = byte_characters()
    words += [f"{word}</w>" for word in words] + ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({word: at for at, word in enumerate(words)}), encoding="utf-8")
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77)


def make_text_encoder(words: int) -> CLIPTextModel:
    """Return a text encoder of two layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=WIDTH,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=words - 2,
            eos_token_id=words - 1,
            pad_token_id=words - 1,
        )
    )


def main(folder: str) -> None:
    """Make every part from the same seed and save the whole."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        norm_num_groups=2,
        attention_head_dim=4,
    )
    # Four levels, as real ones have: a latent is an eighth of the picture in each direction.
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=make_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
