"""What a World-Action model is: the interface that you implement to bring your own.

A `WorldModel` imagines the next frames. An `Actor` reads the world model's features and emits
actions. `wamrl.models.wam.WAM` puts the two together; sampling, scoring, training and the latent
KL are the framework's. If your world model denoises latents by flow matching, start from
`wamrl.models.flow_world.FlowWorldModel`, which has the loop and the loss already.
`wamrl.models.check.check_wam` names the first fault. docs/own-model.md is a worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wamrl.types import Batch, Clip, Obs, Past, where


@dataclass(frozen=True, kw_only=True)
class WAMSpec:
    """Static facts of a model; streams are checked against them where they meet."""

    views: int
    image_hw: tuple[int, int]
    history_offsets: tuple[int, ...]  # control steps <= 0, ascending, the last is 0
    frame_offsets: tuple[int, ...]  # imagined frames, control steps > 0, ascending
    chunk: int  # N
    action_dim: int  # A
    proprio_dim: int  # P
    taps: tuple[str, ...]  # features the actor reads and the latent KL holds
    feature_sigma: float  # noise level of the imagined frames when the features are read
    feature_steps: int = 2  # Euler steps from pure noise down to feature_sigma, where that is < 1
    present: slice | None = None  # told to the actor that is built: see `WorldModel.present`
    past: int = 0  # R, earlier decisions that an `EpisodicWorldModel` remembers

    @property
    def imagine_causes_action(self) -> bool:
        """Whether the actor reads features of a partly denoised imagination.

        If not, the imagination may be computed later than the action, or never.
        """
        return self.feature_sigma < 1

    def validate(self) -> None:
        """ValueError of one sentence that names the field and says what it must be."""
        history = list(self.history_offsets)
        future = list(self.frame_offsets)
        if history != sorted(history) or history[-1:] != [0]:
            raise ValueError(
                f"history_offsets={self.history_offsets} must ascend and end with 0 (the present "
                "frame)"
            )
        if not future or future != sorted(future) or future[0] < 1:
            raise ValueError(
                f"frame_offsets={self.frame_offsets} must be positive control steps, ascending"
            )
        if not 0 <= self.feature_sigma <= 1:
            raise ValueError(
                f"feature_sigma={self.feature_sigma} must lie in [0, 1] (1 = one pass at pure "
                "noise)"
            )
        if self.past < 0:
            raise ValueError(f"past={self.past} must be a number of decisions, 0 or more")


class WorldModel(nn.Module, ABC):
    """Imagines the frames at `spec.frame_offsets`.

    All that is random about a row comes from its seed (see `flow.draws`), so that every
    imagination can be repeated from a number. A row depends on no other row of the batch.
    `context` is whatever `encode` returns for B observations: it holds all that later calls need
    of the past (a causal VAE decodes latents only after what came before them), it serves any
    number of calls, and a later `encode` leaves it as it is.
    """

    spec: WAMSpec
    feature_dim: int  # D
    present: slice | None = None  # which of the L tokens are the present frame's, if that is known

    @abstractmethod
    def encode(self, obs: Obs) -> Any:
        """The context: history frames, normalised state and instruction, encoded once."""

    @abstractmethod
    def features(self, context: Any, seeds: Tensor) -> Tensor:
        """What the actor reads, (B, taps, L, D).

        From a pass at noise level `spec.feature_sigma`, which carries a gradient. Whatever is
        denoised to get there carries none. seeds: int64 (B,) of the starting noise.
        """

    @abstractmethod
    def imagine(self, context: Any, seeds: Tensor, steps: int) -> Tensor:
        """Frames float32 in [0, 1], (B, F, V, H, W, 3), after `steps` >= 1 denoising steps.

        seeds: int64 (B,); the noise is the one that `features` starts from.
        """

    @abstractmethod
    def loss(self, clip: Clip, context: Any, seeds: Tensor) -> Tensor:
        """How badly the future frames are predicted, one value per sample, (B,).

        The clip's state and actions are normalised, for models that condition on them.
        Frames beyond the episode's end (`clip.future_mask`) count for nothing.
        seeds: int64 (B,) of the noise levels and the noise.
        """


class EpisodicWorldModel(WorldModel):
    """A world model that remembers what it saw and did at earlier decisions of the episode.

    What it remembers is its *state*: a `Batch` of tensors, one row per episode, such as keys and
    values of every block. The state is no record, it is computed: from the last `spec.past`
    decisions (`Obs.past`), oldest first,
        state = begin(B);  for each decision: state = observe(state, obs, actions, executed)
    and that is its definition everywhere. So the same state is there again wherever a decision is
    looked at again, every model (frozen, average) reads one of its own weights, none is ever stale,
    and losses train what is remembered. Only while an episode is played is its state kept and
    observed into, decision by decision; once decisions fall out of the window, it is recalled.

    Units are normalised, as in `encode`. `obs.past` is None here: all of the past is in the state.
    """

    @abstractmethod
    def begin(self, batch: int) -> Batch:
        """The state before the first decision; all rows alike."""

    @abstractmethod
    def observe(self, state: Batch, obs: Obs, actions: Tensor, executed: Tensor) -> Batch:
        """The state after one more decision; `state` itself, of fewer than R, stays as it is.

        obs: what was seen at it. actions: float32 (B, N, A), executed in its first `executed`
        control steps, int64 (B,), and 0 after them. Rows with executed = 0 are given for nothing:
        what is returned for them is dropped.
        """

    @abstractmethod
    def encode(self, obs: Obs, state: Batch) -> Any:
        """See `WorldModel`; the state goes into the context as the history frames do."""

    def recall(self, past: Past, text: tuple[str, ...]) -> Batch:
        """The state after the R decisions of `past`. Override it if one pass can do what R
        `observe` do; `check_wam` compares.
        """
        state = self.begin(len(past))
        for place in range(past.executed.shape[1]):
            obs, actions, executed = past.decision(place, text)
            state = where(executed > 0, self.observe(state, obs, actions, executed), state)
        return state


class Actor(nn.Module, ABC):
    """Reads features, emits a chunk of actions by flow matching."""

    @abstractmethod
    def condition(self, features: Tensor, proprio: Tensor) -> Any:
        """What all denoising steps share.

        features: float32 (B, taps, L, D). proprio: float32 (B, P), normalised.
        """

    @abstractmethod
    def velocity(self, a: Tensor, sigma: Tensor, condition: Any, repeat: int = 1) -> Tensor:
        """Action velocity (B * repeat, N, A) at a of this shape and sigma (B * repeat,).

        Each row of the condition serves `repeat` consecutive rows of `a`.
        """


class ReentrantActor(Actor):
    """An actor that runs its actions through a module of the world model, beside its own weights.

    That module stays the world model's: it is registered there only, and given where it is needed.
    Learning from demonstrations trains it with both losses. Online the video loss and the latent KL
    train it, and the policy gradient and cloning leave it alone, unless a run says otherwise
    (`train.learner.shared`, `train.world.shared`).
    """

    @abstractmethod
    def shared(self, world: WorldModel) -> nn.Module:
        """What of the world model the actions run through; ValueError if it has no such thing."""

    @abstractmethod
    def condition(self, features: Tensor, proprio: Tensor, world: WorldModel) -> Any:
        """See `Actor`; world: whose features these are."""


class WorldModelConfig(ABC):
    """Subclass per world model, a frozen dataclass: `WAMConfig(world=MyWorldConfig())`."""

    feature_sigma: float = 1.0  # see `WAMSpec`
    past: int = 0  # see `WAMSpec`

    @property
    @abstractmethod
    def tap_names(self) -> tuple[str, ...]:
        """One name per tap, for the metrics of the latent KL."""

    @abstractmethod
    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""

    @abstractmethod
    def build(self, spec: WAMSpec) -> WorldModel:
        """The model with fresh weights, from torch's global random state."""


class ActorConfig(ABC):
    """Subclass per actor, a frozen dataclass: `WAMConfig(actor=MyActorConfig())`."""

    @abstractmethod
    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""

    @abstractmethod
    def build(self, spec: WAMSpec, feature_dim: int) -> Actor:
        """The actor with fresh weights. feature_dim: D of the features that it reads."""
