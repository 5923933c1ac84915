"""wamrl: improve World-Action models by online interaction.

    import wamrl

    run = wamrl.load("runs/NAME")     # a run folder
    actions = run.act(observation)    # a dict of images and state; float32 (N, A)

Importing this does nothing and needs no simulator: what a name needs is imported when it is used
first. docs/api.md shows all of it.
"""

import sys
from types import ModuleType

TYPE_CHECKING = False  # as type checkers know it; importing `typing` takes its time

if TYPE_CHECKING:
    from wamrl.api.run import Evaluation as Evaluation
    from wamrl.api.run import Run as Run
    from wamrl.api.run import load as load
    from wamrl.api.training import Trainer as Trainer
    from wamrl.api.training import demonstrate as demonstrate
    from wamrl.api.training import recipe as recipe
    from wamrl.api.training import sft as sft
    from wamrl.api.training import train as train

__version__ = "0.1.0"
__all__ = [
    "Evaluation",
    "Run",
    "Trainer",
    "__version__",
    "demonstrate",
    "load",
    "recipe",
    "sft",
    "train",
]
_PUBLIC = frozenset(__all__) - {"__version__"}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wamrl' has no attribute {name!r}")
    from wamrl import api

    found = getattr(api, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # The import system puts the module wamrl/train.py where our function `train` is, whenever
        # that module is imported first; `from wamrl.train import ..` does not need it there.
        if name not in _PUBLIC or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
