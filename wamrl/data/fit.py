"""Does a dataset fit an environment? What cannot work is refused; what is odd is said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from wamrl.data.recording import Recording
from wamrl.envs.base import EnvSpec

_TOLERANCE = 0.01  # of a dimension's range: beyond the bounds by less is rounding
_SHOWN = 5  # dimensions, or instructions


def must_fit(recording: Recording, spec: EnvSpec, place: Path) -> None:
    """ValueError where cameras, sizes or dimensions differ."""
    found = {
        "cameras": (len(recording.views), len(spec.views)),
        "image size": (tuple(recording.image_hw), tuple(spec.image_hw)),
        "state dimensions": (recording.proprio.shape[1], spec.proprio_dim),
        "action dimensions": (recording.actions.shape[1], spec.action_dim),
    }
    for what, (there, here) in found.items():
        if there != here:
            raise ValueError(
                f"{place} does not fit {spec.name}: its {what} are {there}, the environment's "
                f"{here}: choose --views and --state-keys of the dataset, or change the environment"
            )


def oddities(recording: Recording, spec: EnvSpec) -> list[str]:
    """What a user should know before training on it, a sentence each: actions beyond the bounds,
    other instructions, and the recording's own notes.
    """
    return [*recording.notes, *_beyond(recording, spec), *_other_words(recording, spec)]


def _beyond(recording: Recording, spec: EnvSpec) -> list[str]:
    """Of actions that the environment would clip."""
    low, high = spec.bounds
    slack = _TOLERANCE * (high - low)
    actions = recording.actions
    outside = ((actions < low - slack) | (actions > high + slack)).mean(0)
    said = []
    for dim in np.flatnonzero(outside)[:_SHOWN]:
        least = actions[:, dim].min()
        most = actions[:, dim].max()
        said.append(
            f"action {dim}: {outside[dim]:.1%} of the dataset's lie outside of the environment's "
            f"{low[dim]:g}..{high[dim]:g} (they go from {least:g} to {most:g}): other units? what "
            "is outside will be clipped"
        )
    if (more := np.count_nonzero(outside) - _SHOWN) > 0:
        said.append(f"and so do {more} more action dimensions")
    return said


def _other_words(recording: Recording, spec: EnvSpec) -> list[str]:
    texts = Counter(fact.text for fact in recording.facts)
    others = {text: n for text, n in texts.most_common() if text != spec.instruction}
    if not others:
        return []
    listed = ", ".join(f"{text!r} ({n})" for text, n in list(others.items())[:_SHOWN])
    more = ", ..." * (len(others) > _SHOWN)
    return [
        f"instructions differ: {sum(others.values())} of {len(recording.facts)} episodes say "
        f"{listed}{more}, the environment says {spec.instruction!r}: set env.instruction to the "
        "words that the model shall hear, or convert the dataset"
    ]
