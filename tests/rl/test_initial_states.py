"""Where episodes start."""

from itertools import islice

import pytest
import torch

from wamrl.rl.initial_states import InitialStateSampler, InitialStatesConfig
from wamrl.types import InitialState


def train(*index: int) -> list[InitialState]:
    return [InitialState(split="train", index=i) for i in index]


def states(starts: list[InitialState]) -> torch.Tensor:
    return torch.tensor([s.index for s in starts])


def seen(
    cfg: InitialStatesConfig = InitialStatesConfig(group=2, revisit=0.5, capacity=50),  # noqa: B008
) -> InitialStateSampler:
    starts = InitialStateSampler(cfg)
    starts.draw(5, torch.Generator())  # 0..4
    outcome = {0: (1, 1), 1: (0, 0), 2: (1, 0), 3: (0, 1), 4: (0, 0)}
    for i, wins in outcome.items():
        starts.observe(torch.tensor([i, i]), torch.tensor(wins).bool())
    return starts


def test_fresh_states_come_in_order_and_in_groups():
    starts = InitialStateSampler(InitialStatesConfig(group=3, revisit=0.5))
    assert starts.draw(2, torch.Generator()) == train(0, 0, 0, 1, 1, 1)
    assert starts.draw(1, torch.Generator()) == train(2, 2, 2)


def test_only_states_with_mixed_outcomes_are_visited_again():
    for seed in range(20):
        starts = seen()
        chosen = starts.draw(8, torch.Generator().manual_seed(seed))
        assert (
            len(chosen) == 16
            and chosen[::2] == chosen[1::2]
            and all(s.split == "train" for s in chosen)
        )
        again = {s.index for s in chosen if s.index < 5}
        assert again == {2, 3}  # both that are mixed, though half of eight were wanted
        assert [s.index for s in chosen[4::2]] == list(range(5, 11))


def test_no_revisits_if_none_are_wanted():
    starts = seen(InitialStatesConfig(group=2, revisit=0.0, capacity=50))
    assert {s.index for s in starts.draw(4, torch.Generator())} == {5, 6, 7, 8}


def test_old_outcomes_fade():
    starts = seen()
    starts.observe(torch.tensor([2, 2]), torch.tensor([True, True]))
    assert starts.tries[2] == 3 and starts.wins[2] == 2.5


def test_the_generator_decides_and_a_resume_goes_on():
    a, b = seen(), seen()
    ga, gb = (torch.Generator().manual_seed(4) for _ in range(2))
    assert a.draw(4, ga) == b.draw(4, gb)
    a.observe(torch.tensor([5, 5]), torch.tensor([True, False]))
    c, gc = InitialStateSampler(a.cfg), torch.Generator()
    c.load_state_dict(a.state_dict())
    gc.set_state(ga.get_state())
    assert [a.draw(3, ga) for _ in range(5)] == [c.draw(3, gc) for _ in range(5)]


def test_training_never_leaves_its_memory():
    starts = InitialStateSampler(InitialStatesConfig(group=1, revisit=0.0, capacity=3))
    assert [s.index for s in starts.draw(7, torch.Generator())] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("change", [{"group": 0}, {"revisit": 1.5}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match="initial_states"):
        InitialStateSampler(InitialStatesConfig(**change))


def test_unseen_states_are_those_never_tried():
    starts = InitialStateSampler(InitialStatesConfig(group=2, revisit=0.5))
    first = states(starts.draw(2, torch.Generator().manual_seed(0)))
    assert starts.unseen(first).all()
    starts.observe(first, torch.tensor([True, False, True, False]))
    second = states(starts.draw(4, torch.Generator().manual_seed(0)))
    assert torch.equal(starts.unseen(second), ~torch.isin(second, first))
    assert 0 < starts.unseen(second).sum() < len(second)


@pytest.mark.parametrize("revisit", [0.0, 0.3, 0.5, 1.0])
def test_under_a_budget_the_first_groups_are_mixed_as_if_no_more_had_been_drawn(revisit):
    cfg = InitialStatesConfig(group=2, revisit=revisit, capacity=50)
    few = [seen(cfg).draw(n, torch.Generator().manual_seed(1)) for n in range(12)]
    many = list(seen(cfg).stream(24, torch.Generator().manual_seed(1)))
    assert len(many) == 24
    for n, starts in enumerate(few):
        first = many[: 2 * n]
        assert (
            sum(s.index < 5 for s in first)
            == sum(s.index < 5 for s in starts)
            == 2 * min(int(n * revisit), 2)
        )
        assert [s for s in first if s.index >= 5] == [s for s in starts if s.index >= 5]


@pytest.mark.parametrize("revisit", [0.0, 0.5, 1.0])
# also where the fresh states wrap and meet the revisited ones
@pytest.mark.parametrize("capacity", [6, 7, 50])
def test_what_is_not_asked_for_is_not_drawn(revisit, capacity):
    cfg = InitialStatesConfig(group=2, revisit=revisit, capacity=capacity)
    for begun in range(1, 10):
        starts = seen(cfg)
        before = starts.fresh
        drawn = list(islice(starts.stream(20, torch.Generator().manual_seed(1)), 2 * begun))
        revisits = min(int(begun * revisit), 2)
        assert starts.fresh == before + begun - revisits
        again = starts.draw(1, torch.Generator().manual_seed(2))
        if revisit == 0:
            assert again[0].index == (drawn[-1].index + 1) % capacity
