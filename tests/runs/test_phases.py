"""The pieces of a run: what is in memory when the base model is made."""

import weakref

from tests.support import tiny
from wamrl.runs import phases
from wamrl.runs.demonstrations import Data
from wamrl.runtime.log import new_run


def test_what_was_trained_is_gone_when_the_base_is_made(tmp_path, monkeypatch):
    """Model, gradients, moments: of a large model they would not fit beside another one."""
    watched = {}
    expected = {}
    alive = []

    def fine_tune(state, *args):
        tuned(state, *args)
        for name in ("wam", "average", "optimizer"):
            watched[name] = weakref.ref(getattr(state, name))
        watched["a weight"] = weakref.ref(next(state.wam.parameters()))
        watched["a gradient"] = weakref.ref(next(state.wam.parameters()).grad)
        for name, weight in state.average.state_dict().items():
            expected[name] = weight.clone()

    def fresh_model(cfg):
        alive[:] = [name for name, ref in watched.items() if ref() is not None]
        return fresh(cfg)

    tuned = phases.fine_tune
    fresh = phases.fresh_model
    monkeypatch.setattr(phases, "fine_tune", fine_tune)
    monkeypatch.setattr(phases, "fresh_model", fresh_model)
    run = new_run(tmp_path, "base", tiny.CONFIG)
    data = Data(demos=tiny.demos(), heldout=tiny.demos().at(tiny.torch.arange(8)))
    wam = phases.base_model(tiny.CONFIG, data, run)
    assert len(watched) == 5 and not alive
    assert tiny.difference(wam.state_dict(), expected) is None
    assert all(p.requires_grad for p in wam.parameters())
