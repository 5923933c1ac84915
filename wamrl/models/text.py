"""Instructions embedded by a text encoder of transformers, once, and kept in a file by their words.

    wamrl embed RECIPE --encoder FOLDER --file text.safetensors
    wamrl sft RECIPE --model.world.text text.safetensors

A file holds one float32 (L, W) per instruction: the encoder's last hidden states, 0 beyond its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wamrl.runtime.files import sha256

# of config.json -> the class of transformers that reads text; no other class is ever made
ENCODERS = {
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "mt5": "MT5EncoderModel",
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "siglip": "SiglipTextModel",
    "siglip_text_model": "SiglipTextModel",
}
MOST_TOKENS = 512  # what is longer is cut


class TextFile:
    """What such a file says. It never learns, copies of a model share it, checkpoints leave it out
    (see `digest`).
    """

    def __init__(self, path: str, width: int | None = None) -> None:
        """width: that it must have. ValueError of one sentence where the file does not fit."""
        option = f"--model.world.text {path}"
        try:
            self.table = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{option} is not readable ({error}): make it by `wamrl embed`"
            ) from error
        shapes = sorted({tuple(value.shape) for value in self.table.values()})
        if len(shapes) != 1 or len(shapes[0]) != 2 or width not in (None, shapes[0][1]):
            raise ValueError(
                f"{option} must hold one (L, {width or 'W'}) per instruction, with one L for all, "
                f"not {shapes}"
            )
        self.width = shapes[0][1]
        self.digest = bytes.fromhex(sha256(Path(path)))

    def __deepcopy__(self, memo: dict) -> TextFile:
        return self

    def __call__(self, text: Sequence[str]) -> Tensor:
        """B instructions -> float32 (B, L, W), on the CPU."""
        unknown = sorted(set(text) - self.table.keys())
        if unknown:
            raise ValueError(
                f"no embedding of {unknown[0]!r} in --model.world.text: `wamrl embed` takes all "
                "instructions of an environment"
            )
        return torch.stack([self.table[t] for t in text])


class EmbeddedText(nn.Module):
    """The mean over an instruction's tokens, projected; only the projection learns."""

    def __init__(self, path: str, width: int) -> None:
        super().__init__()
        self.file = TextFile(path)
        self.project = nn.Linear(self.file.width, width)
        self.register_buffer("digest", torch.tensor(list(self.file.digest), dtype=torch.uint8))

    def forward(self, text: tuple[str, ...]) -> Tensor:
        """B instructions -> (B, width)."""
        rows = self.file(text)
        real = rows.abs().sum(2, keepdim=True) > 0
        mean = rows.sum(1) / real.sum(1).clamp(min=1)
        # encoders differ by orders of magnitude in how large their states are
        mean = nn.functional.layer_norm(mean, mean.shape[-1:])
        return self.project(mean.to(self.project.weight.device))

    def _load_from_state_dict(self, state, prefix, meta, strict, missing, unexpected, errors):
        saved = state.get(f"{prefix}digest")
        if saved is not None and not torch.equal(saved.cpu(), self.digest.cpu()):
            errors.append("it was trained with another file of instructions, --model.world.text")
        super()._load_from_state_dict(state, prefix, meta, strict, missing, unexpected, errors)


def embed(texts: Sequence[str], folder: str, tokens: int = 0) -> dict[str, Tensor]:
    """What a text encoder says of each text, float32 (L, W), L of the longest or `tokens`.

    folder: as `save_pretrained` writes one, its tokenizer in it or in `tokenizer` beside it, as
    diffusers has it; safetensors only, no code of its own. ValueError of one sentence where it
    holds no known encoder.
    """
    encoder, tokenizer = _pretrained(Path(folder))
    longest = _longest(encoder.config)
    if tokens > longest:
        raise ValueError(f"tokens={tokens} is not possible: this encoder reads {longest} at most")
    wanted = {"padding": "max_length" if tokens else True, "truncation": True}
    wanted |= {"max_length": tokens or longest}
    read = tokenizer(list(texts), return_tensors="pt", **wanted)
    options = {"input_ids": read.input_ids, "attention_mask": read.attention_mask}
    with torch.no_grad():
        states = encoder(**options).last_hidden_state
    states = states.float() * read.attention_mask[..., None]
    return {text: row.contiguous() for text, row in zip(texts, states, strict=True)}


def _pretrained(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"--encoder {folder} holds no text encoder (no config.json): give a local folder with "
            "config.json, *.safetensors and a tokenizer"
        )
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "embedding instructions needs transformers: pip install -e '.[rewards]' in the clone "
            "of wamrl"
        ) from error
    transformers.utils.logging.disable_progress_bar()  # it would be all that the verb says
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **local)
        name = ENCODERS.get(config.model_type)
        if name is None:
            raise ValueError(f"{config.model_type} is none of {', '.join(ENCODERS)}")
        kind = getattr(transformers, name)
        encoder = kind.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        beside = folder.parent / "tokenizer"
        place = folder if (folder / "tokenizer_config.json").is_file() else beside
        return encoder.eval(), transformers.AutoTokenizer.from_pretrained(place, **local)
    except (OSError, ValueError, KeyError, ImportError) as error:
        words = str(error).strip().splitlines()[0]
        raise ValueError(
            f"--encoder {folder} holds no text encoder that can be read ({words}): give a local "
            "folder with config.json, *.safetensors and a tokenizer"
        ) from error


def _longest(config: Any) -> int:
    """CLIP has a position for each token; T5 has none."""
    return min(MOST_TOKENS, getattr(config, "max_position_embeddings", None) or MOST_TOKENS)
