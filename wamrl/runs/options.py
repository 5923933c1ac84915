"""What one may ask of a run, as the verbs' options are put together of.
No torch here: `--help` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Ge, Le

from wamrl.data.keys import DataKeys
from wamrl.runtime.ranges import Count, CountOrZero, NotNegative, Positive
from wamrl.runtime.shown import Place, Word
from wamrl.runtime.trackers import DEFAULT, TrackerName

if TYPE_CHECKING:
    from wamrl.config import Config
    from wamrl.runs.record import RunRecord

Ranks = Annotated[int, Ge(0), Le(256)]  # of one machine; torchrun starts those of several


@dataclass(frozen=True, kw_only=True)
class Makes:
    """A verb that makes a run folder."""

    out: Path = Path("runs")  # where the run folder is made
    smoke: bool = False  # everything, but tiny: does it run here?


@dataclass(frozen=True, kw_only=True)
class Resumes:
    """A verb whose run can be interrupted."""

    # a run folder that was interrupted: go on there, with its recipe, options, data and base
    resume: Place = None
    # with --resume: learning rates may differ from the run's; written into run.json and the log
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Learns:
    """A verb that looks at demonstrations."""

    # demonstrations: a run folder, a dataset, or hf://owner/name; else those of the base, else some
    # are recorded
    data: Place = None
    # what the columns of that dataset are called: --views, --rename, --state-keys, ...
    keys: Annotated[DataKeys, tyro.conf.arg(name="")] = DataKeys()


@dataclass(frozen=True, kw_only=True)
class Starts:
    """A verb that begins with a model."""

    # a run folder, model folder or hf://owner/name: the model to begin with, or to measure
    base: Place = None


@dataclass(frozen=True, kw_only=True)
class Shares:
    """A verb that several processes can share."""

    # processes that share the run; 0: on CPUs one per core where nothing speaks against it, else 1
    ranks: Ranks = 0


@dataclass(frozen=True, kw_only=True)
class Alone:
    """A verb that runs in one process."""

    ranks: Ranks = 0  # always one: taken from whoever gives `--ranks 1` to every verb


@dataclass(frozen=True, kw_only=True)
class Keeps:
    """A verb that rolls out."""

    # also write every frame of the rollouts, as datasets in rollouts/
    keep_rollouts: bool = False


@dataclass(frozen=True, kw_only=True)
class Films:
    """A verb that shows episodes."""

    # also write the episodes of its videos as recordings for rerun: FILE.rrd
    rerun: bool = False


@dataclass(frozen=True, kw_only=True)
class Tells:
    """A verb whose numbers go to services too."""

    # tensorboard, wandb, trackio: where numbers, pictures and videos go beside metrics.jsonl
    trackers: tuple[TrackerName, ...] = DEFAULT


@dataclass(frozen=True, kw_only=True)
class Embeds:
    """A verb that reads instructions."""

    # a local folder of transformers: T5, UMT5, CLIP or SigLIP, with its tokenizer
    encoder: Word = ""
    # how many an instruction is filled up to with zeros; 0: as many as the longest one has
    tokens: CountOrZero = 0
    file: Path = Path("text.safetensors")  # what is written, for --model.world.text


@dataclass(frozen=True, kw_only=True)
class Fits:
    """A verb that reckons with GPUs which need not be here."""

    gpus: Count = 1  # that share the run, a rank on each
    gpu_memory_gib: Positive = 80.0  # of each
    # 10^12 operations a second that one of them reaches, to make seconds of them; 0: unknown
    tflops: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Options(Embeds, Fits, Films, Tells, Keeps, Shares, Resumes, Starts, Learns, Makes):
    """One run: what any verb may ask, and its configuration."""

    config: Config
    verb: str = ""
    recipe: str = ""  # the name that `find_recipe` knows it by; "": it has none
    words: tuple[str, ...] = ()  # as they were typed, after the verb
    record: RunRecord | None = None  # what the run to resume says of itself
