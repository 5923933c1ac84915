"""Where and to whom a policy is served. No torch here: `wamrl serve --help` shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Of a policy server."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    execute: int = 0  # actions of a chunk that are sent; 0: all
    max_mb: float = 16.0  # of one message
    clients: int = 16  # at once
    log_every_s: float = 30.0

    def validate(self, chunk: int) -> None:
        """ValueError of one sentence. chunk: actions that the model decides at once."""
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port={self.port} is not possible: choose 0 (any free one) to 65535")
        if not 0 <= self.execute <= chunk:
            raise ValueError(
                f"execute={self.execute} is not possible: this model decides {chunk} actions at "
                f"once, choose 1 to {chunk}, or 0 for all"
            )
        if not (self.max_mb > 0 and self.clients > 0 and self.log_every_s > 0):
            raise ValueError("serve: max_mb, clients and log_every_s must be > 0")
