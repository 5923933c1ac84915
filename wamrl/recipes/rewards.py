"""The similarities that `wamrl compare-rewards` compares:
the paper's four, and the networks of two of them untrained.
"""

from __future__ import annotations

from wamrl.rewards.features import DINOv2Config, VJEPA2Config
from wamrl.rewards.optical_flow import OpticalFlowConfig
from wamrl.rewards.pixels import PixelConfig

# Untrained networks are the control of the trained ones: what does the architecture see by itself?
ALL = (
    PixelConfig(),
    OpticalFlowConfig(),
    DINOv2Config(),
    VJEPA2Config(),
    DINOv2Config(weights=None),
    VJEPA2Config(weights=None),
)
