"""LoRA on a network of diffusers, through peft: the published weights stay, small adapters learn.

Copies of the model share the published weights, and a checkpoint holds the adapters only. So the
reference that the latent KL is taken against, and the running average, cost an adapter each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wamrl.runtime.ranges import CountOrZero, Positive, check_ranges

_LEARNS = "lora_"  # in the names of what peft adds


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Adapters W + alpha / rank B A beside linear layers W; B = 0 at the start."""

    rank: CountOrZero = 0  # 0: no adapters, all weights learn
    alpha: Positive = 16.0
    # ends of layers' names: attention to itself and to the instruction
    layers: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.world.lora")
        if self.rank and not self.layers:
            raise ValueError("model.world.lora: name layers, or set rank 0 to train all weights")


def add_adapters(network: nn.Module, cfg: LoRAConfig) -> None:
    """Freeze the network and let adapters learn. ValueError where no layer is called so."""
    from peft import LoraConfig

    options = {"r": cfg.rank, "lora_alpha": cfg.alpha, "target_modules": list(cfg.layers)}
    try:
        network.add_adapter(LoraConfig(**options))
    except ValueError as error:
        raise ValueError(f"model.world.lora: {str(error).splitlines()[0]}") from error
    network.register_state_dict_post_hook(_leave_out)
    network.register_load_state_dict_post_hook(_not_missing)


def frozen_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What never learns, by its name: all but the adapters, where there are some."""
    if getattr(network, "peft_config", None):
        yield from (pair for pair in network.named_parameters() if _LEARNS not in pair[0])


def export_merged(network: nn.Module, folder: Path) -> None:
    """Write the network with its adapters added into its weights, for other programs to load."""
    import diffusers

    kind = getattr(diffusers, network.config["_class_name"])
    merged = kind(**{k: v for k, v in network.config.items() if not k.startswith("_")})
    state = {}
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            (adapter,) = module.active_adapters
            delta = module.get_delta_weight(adapter)
            state[f"{name}.weight"] = module.get_base_layer().weight + delta
    for name, weight in frozen_weights(network):
        state.setdefault(name.replace(".base_layer", ""), weight)
    merged.load_state_dict(state)
    merged.save_pretrained(folder)


def _leave_out(network: nn.Module, state: dict[str, Any], prefix: str, meta: dict) -> None:
    for name, _ in frozen_weights(network):
        del state[prefix + name]


def _not_missing(network: nn.Module, incompatible: Any) -> None:
    frozen = {name for name, _ in frozen_weights(network)}
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if key.rpartition("transformer.")[2] not in frozen]
