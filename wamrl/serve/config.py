"""Where and to whom a policy is served. No torch here: `wamrl serve --help` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from wamrl.runtime.ranges import Count, CountOrZero, Positive


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Of a policy server."""

    host: str = "127.0.0.1"  # the address to listen at; the default is this machine only
    port: Annotated[int, Ge(0), Le(65535)] = 8000  # to listen at; 0: any that is free
    execute: CountOrZero = 0  # actions of a chunk that are sent; 0: all
    max_mb: Positive = 16.0  # megabytes that one message may have
    clients: Count = 16  # that may be connected at once
    log_every_s: Positive = 30.0  # seconds between two lines about latency

    def require_chunk(self, chunk: int) -> None:
        """ValueError of one sentence. chunk: actions that the model decides at once."""
        if self.execute > chunk:
            raise ValueError(
                f"execute={self.execute} is not possible: this model decides {chunk} actions at "
                f"once, choose 1 to {chunk}, or 0 for all"
            )
