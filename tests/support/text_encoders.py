"""Text encoders of transformers, real classes with random weights, and a tokenizer made here."""

from __future__ import annotations

from pathlib import Path

import torch


def save_encoder(folder: Path, kind: str, words: list[str], width: int = 16) -> Path:
    """A folder as `save_pretrained` writes it; kind: "t5" or "clip"."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "</s>", *words])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    if kind == "t5":
        sizes = {"d_model": width, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1}
        config = transformers.T5Config(vocab_size=len(vocabulary), **sizes)
        model = transformers.T5EncoderModel(config)
    else:
        sizes = {"hidden_size": width, "intermediate_size": 32, "num_attention_heads": 2}
        sizes |= {"num_hidden_layers": 1, "max_position_embeddings": 8}
        config = transformers.CLIPTextConfig(vocab_size=len(vocabulary), eos_token_id=2, **sizes)
        model = transformers.CLIPTextModel(config)
    model.save_pretrained(folder)
    return folder
