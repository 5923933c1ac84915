"""Cosmos, a public video model, as the world model. Needs `pip install -e '.[diffusers]'`."""

from __future__ import annotations

from wamrl.config import Config
from wamrl.models.cosmos import CosmosConfig
from wamrl.recipes.wan import on_metaworld


def cosmos_2b() -> Config:
    """Cosmos-Predict2-2B-Video2World on MetaWorld; untrained so far. See docs/backbones.md."""
    return on_metaworld("cosmos-2b", CosmosConfig(recompute=True))
