"""What the columns of somebody else's dataset are called. No torch here: `--help` shows it."""

from __future__ import annotations

from dataclasses import dataclass

from wamrl.runtime.shown import Word, Words


@dataclass(frozen=True, kw_only=True)
class DataKeys:
    """What a dataset calls its columns. What is left open goes by the conventions of its format."""

    views: Words = ()  # cameras, in this order, by their old or new names; none: all
    rename: Words = ()  # cameras, OLD=NEW, such as cam_high=front
    state_keys: Words = ()  # columns, joined into the proprioception
    action_key: Word = ""  # the column of the actions
    # a column that reaches 1 in the episodes that succeeded
    success_key: Word = ""

    @classmethod
    def of(cls, saved: dict) -> DataKeys:
        """From JSON, which has lists for tuples; ValueError or TypeError if it is not ours."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})

    @property
    def renamed(self) -> dict[str, str]:
        """New name -> old name. ValueError for what is no OLD=NEW, or names a camera twice."""
        pairs = [tuple(entry.split("=")) for entry in self.rename]
        if not all(len(pair) == 2 and all(pair) for pair in pairs):
            raise ValueError(
                f"--rename {' '.join(self.rename)} is not possible: give OLD=NEW, such as "
                "cam_high=front"
            )
        for names in zip(*pairs, strict=True):
            if len(set(names)) < len(names):
                raise ValueError(f"--rename {' '.join(self.rename)} names a camera twice")
        return {new: old for old, new in pairs}

    def options(self, views: tuple[str, ...] | None = None) -> dict[str, object]:
        """Arguments of `open_lerobot` and `open_hdf5`; views: where none are named here."""
        found: dict[str, object] = {
            "state_keys": self.state_keys,
            "action_key": self.action_key,
            "success": self.success_key or "auto",
        }
        renamed = self.renamed
        wanted = self.views or views
        if wanted is not None:
            found["views"] = tuple(renamed.get(view, view) for view in wanted)
        return found
