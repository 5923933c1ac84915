"""Published world-action checkpoints by our names: the world-model half of each.

    found = mapped(FAST_WAM, load_file("fastwam.safetensors"), network)
    print(found.told())

A map says what a published name is called in the class of diffusers that our world models hold;
what it leaves over (action experts, embeddings of views) is named, and so is what is missing. Names
are those of the published code: yuantianyuan01/FastWAM, Robbyant/lingbot-va,
AgibotTech/Genie-Envisioner. Pickles (`*.pt`) are not read: who has one saves its tensors as
safetensors first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """How one family's names become ours."""

    name: str
    network: str  # the class of diffusers whose names ours are
    inside: str = ""  # a regular expression: what comes before the world model's names
    renames: tuple[tuple[str, str], ...] = ()  # regular expressions, each applied in turn
    # ours, where the same numbers in the same order have another shape
    reshaped: tuple[str, ...] = ()

    def ours(self, published: str) -> str | None:
        """Our name of a published one; None where it lies outside of the world model."""
        outside = re.match(self.inside, published)
        if outside is None:
            return None
        key = published[outside.end() :]
        for pattern, name in self.renames:
            key = re.sub(pattern, name, key)
        return key


# as Wan's own code has them, which Fast-WAM keeps
_WAN = (
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.head\.", "proj_out."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.(attn[12])\.([qkv])\.", r".\1.to_\2."),
    (r"\.(attn[12])\.o\.", r".\1.to_out.0."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
    (r"\.norm3\.", ".norm2."),
)
FAST_WAM = KeyMap(
    name="Fast-WAM",
    network="WanTransformer3DModel",
    inside=r"(?:mot\.)?mixtures\.video\.",
    renames=_WAN,
)
LINGBOT_VA = KeyMap(
    name="LingBot-VA",
    network="WanTransformer3DModel",
    renames=((r"^patch_embedding_mlp\.", "patch_embedding."),),
    reshaped=("patch_embedding.weight",),  # a linear layer on patches, where ours is a convolution
)
GE_ACT = KeyMap(name="GE-Act", network="LTXVideoTransformer3DModel")
KEY_MAPS = (FAST_WAM, LINGBOT_VA, GE_ACT)


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A published checkpoint by our names, and every key that is not simply renamed."""

    state: dict[str, Tensor]  # what fits, by our names
    missing: tuple[str, ...]  # ours, that it does not have
    unexpected: tuple[str, ...]  # its, that ours has no place for
    reshaped: tuple[str, ...]  # ours, whose numbers came in another shape
    misfits: tuple[str, ...]  # ours, that it has in a shape that cannot be

    @property
    def whole(self) -> bool:
        """Whether every weight of ours is there."""
        return not (self.missing or self.misfits)

    def told(self) -> list[str]:
        """Every key that is not simply renamed, a line each."""
        kinds = ("missing", "unexpected", "reshaped", "misfits")
        return [f"{kind}: {key}" for kind in kinds for key in getattr(self, kind)]


def mapped(family: KeyMap, published: Mapping[str, Tensor], network: nn.Module) -> Mapped:
    """published: a state dict of the family; network: ours, of the class that the map names.

    ValueError where it is of another class, or two published names become one.
    """
    if type(network).__name__ != family.network:
        raise ValueError(
            f"{family.name} has the names of a {family.network}, not of a "
            f"{type(network).__name__}: take the recipe of its family"
        )
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    state: dict[str, Tensor] = {}
    unexpected = []
    reshaped = []
    misfits = []
    for name, value in published.items():
        key = family.ours(name)
        if key not in shapes:
            unexpected.append(name)
            continue
        if key in state or key in misfits:
            raise ValueError(f"{name} and another key of this {family.name} both are our {key}")
        if value.shape == shapes[key]:
            state[key] = value
        elif key in family.reshaped and value.numel() == shapes[key].numel():
            state[key] = value.reshape(shapes[key])
            reshaped.append(key)
        else:
            misfits.append(key)
    return Mapped(
        state=state,
        missing=tuple(sorted(shapes.keys() - state.keys() - set(misfits))),
        unexpected=tuple(sorted(unexpected)),
        reshaped=tuple(reshaped),
        misfits=tuple(misfits),
    )


def convert(family: KeyMap, files: list[Path], network: nn.Module, folder: Path) -> Mapped:
    """Write a folder for `--model.world.pretrained` from a published checkpoint's safetensors.

    network: of the checkpoint's sizes; it takes its weights. ValueError of one sentence where a
    weight is missing or does not fit, and nothing is written then.
    """
    published: dict[str, Tensor] = {}
    for file in files:
        try:
            published |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} cannot be read as safetensors ({error})") from error
    found = mapped(family, published, network)
    if not found.whole:
        first = (*found.misfits, *found.missing)[0]
        raise ValueError(
            f"this {family.name} checkpoint lacks {len(found.missing)} weights and has "
            f"{len(found.misfits)} of other shapes ({first}, ...): are the sizes its own?"
        )
    network.load_state_dict(found.state)
    network.save_pretrained(folder)
    return found
