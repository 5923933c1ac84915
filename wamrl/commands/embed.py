"""The verb `embed`: an environment's instructions, as a text encoder reads them, in a file."""

from __future__ import annotations

from safetensors.torch import save

from wamrl.models.text import embed
from wamrl.runs.demonstrations import env_spec
from wamrl.runs.options import Options
from wamrl.runtime.files import atomic_file
from wamrl.runtime.log import console


def write(o: Options) -> None:
    """Embed all instructions of the recipe's environment."""
    spec = env_spec(o.config)
    texts = spec.instructions or (spec.instruction,)
    table = embed(texts, o.encoder, o.tokens)
    with atomic_file(o.file) as draft:
        draft.write_bytes(save(table))
    length, width = table[texts[0]].shape
    told = f"{len(table)} instructions, {length} tokens of {width} -> {o.file}"
    console.print(f"{told}\nuse it with: --model.world.text {o.file}", markup=False)
