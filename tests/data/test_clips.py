import time

import numpy as np
import pytest
import torch

from wamrl.data.clips import ClipBuffer, ClipDataset
from wamrl.data.recording import InMemory
from wamrl.types import Clip, Episode

HISTORY, FUTURE, CHUNK = (-3, 0), (2, 5), 4


def episode(steps: int, number: int, success: bool = True, size: int = 4) -> Episode:
    """Frame s is filled with 10 * number + s; action s with its negative."""
    seen = 10 * number + np.arange(steps + 1)
    acts = -np.repeat(seen[:steps, None], 2, 1).astype(np.float32)
    return Episode(
        frames=np.broadcast_to(
            seen[:, None, None, None, None], (steps + 1, 1, size, size, 3)
        ).astype(np.uint8),
        proprio=seen[:, None].astype(np.float32),
        actions=acts,
        executed=acts + 1,
        success=success,
        stages=1,
        seed=number,
        text=f"task {number}",
    )


EPISODES = [episode(6, 1), episode(1, 5, success=False), episode(9, 9)]


def test_every_clip_against_a_plain_loop():
    data = ClipDataset(InMemory(EPISODES), HISTORY, FUTURE, CHUNK)
    steps = [(e, s) for e in EPISODES for s in range(len(e.actions))]
    assert len(data) == len(steps) == 16 and data.episodes == 3
    clip = data.at(torch.arange(len(steps)))
    for row, (e, s) in enumerate(steps):
        end = len(e.actions)
        assert clip.frames[row, :, 0, 0, 0, 0].tolist() == [
            e.frames[max(0, s + h), 0, 0, 0, 0] for h in HISTORY
        ]
        assert clip.future[row, :, 0, 3, 3, 2].tolist() == [
            e.frames[min(end, s + f), 0, 0, 0, 0] for f in FUTURE
        ]
        assert clip.future_mask[row].tolist() == [s + f <= end for f in FUTURE]
        assert clip.proprio[row].tolist() == e.proprio[s].tolist()
        assert clip.action_mask[row].tolist() == [s + n < end for n in range(CHUNK)]
        wanted = [e.actions[s + n].tolist() if s + n < end else [0.0, 0.0] for n in range(CHUNK)]
        assert clip.actions[row].tolist() == wanted
        assert clip.text[row] == e.text and clip.weight[row] == 1
    assert (
        clip.frames.dtype == torch.uint8
        and clip.actions.dtype == clip.proprio.dtype == torch.float32
    )


def test_sampling_is_uniform_and_follows_the_generator():
    data = ClipDataset(InMemory(EPISODES), HISTORY, FUTURE, CHUNK)
    first, second = (data.sample(4000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.frames, second.frames) and first.text == second.text
    counts = torch.bincount(first.proprio[:, 0].long(), minlength=100)
    assert (counts > 0).sum() == 16 and counts[counts > 0].min() > 180  # 250 expected, sd 15


def test_only_success():
    assert set(
        ClipDataset(InMemory(EPISODES), HISTORY, FUTURE, CHUNK, only_success=True)._text
    ) == {"task 1", "task 9"}
    with pytest.raises(ValueError, match="none of 1 episodes"):
        ClipDataset(InMemory(EPISODES[1:2]), HISTORY, FUTURE, CHUNK, only_success=True)


def test_sampling_is_fast():
    data = ClipDataset(InMemory([episode(80, 1, size=64) for _ in range(30)]), (0,), (4, 8), 8)
    generator = torch.Generator().manual_seed(0)
    took = []
    for _ in range(20):
        begin = time.perf_counter()
        data.sample(64, generator)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.003, took


@pytest.mark.parametrize("success", [False, True])
def test_the_past_of_every_clip_against_a_plain_loop(success):
    """A decision per whole chunk that lies between the start and now, what was sent being done."""
    places = 2
    options = {"past": places, "only_success": success}
    data = ClipDataset(InMemory(EPISODES), HISTORY, FUTURE, CHUNK, **options)
    used = [e for e in EPISODES if e.success or not success]
    steps = [(e, s) for e in used for s in range(len(e.actions))]
    past = data.at(torch.arange(len(steps))).past
    assert past.frames.dtype == torch.uint8 and past.frames.shape[1:3] == (places, len(HISTORY))
    found = set()
    for row, (e, s) in enumerate(steps):
        for place in range(places):
            then = s - CHUNK * (places - place)
            seen = past.frames[row, place, :, 0, 0, 0, 0].tolist()
            if then < 0:
                assert past.executed[row, place] == 0 and seen == [0, 0]
                assert not past.actions[row, place].any() and not past.proprio[row, place].any()
                continue
            assert past.executed[row, place] == CHUNK
            assert seen == [e.frames[max(0, then + h), 0, 0, 0, 0] for h in HISTORY]
            assert past.proprio[row, place].tolist() == e.proprio[then].tolist()
            assert past.actions[row, place].tolist() == e.executed[then : then + CHUNK].tolist()
            found.add(place)
    assert found == {0, 1}
    assert ClipDataset(InMemory(EPISODES), HISTORY, FUTURE, CHUNK).at(torch.arange(2)).past is None


def clips(first: int, count: int, past: int = 0) -> Clip:
    data = ClipDataset(InMemory([episode(50, 0)]), HISTORY, FUTURE, CHUNK, past=past)
    part = data.at(torch.arange(first, first + count))
    return Clip(**{**vars(part), "text": tuple(f"t{first + i}" for i in range(count))})


def contents(buffer: ClipBuffer) -> list[int]:
    values = [int(v) for v in buffer.own_state()["data"]["proprio"][:, 0]]
    assert buffer.state_dict()["text"] == [f"t{v}" for v in values]  # all columns move together
    assert buffer.own_state()["data"]["frames"][:, -1, 0, 0, 0, 0].tolist() == values
    return sorted(values)


def test_buffer_keeps_the_latest():
    buffer = ClipBuffer(5)
    for first, count, kept in (
        (0, 3, range(3)),
        (3, 1, range(4)),
        (4, 3, range(2, 7)),
        (7, 12, range(14, 19)),
    ):
        buffer.append(clips(first, count))
        assert contents(buffer) == list(kept) and len(buffer) == len(kept)
    buffer.append(clips(19, 0))
    assert contents(buffer) == list(range(14, 19))
    drawn = buffer.sample(400, torch.Generator().manual_seed(0))
    assert set(drawn.text) == {f"t{i}" for i in range(14, 19)} and len(drawn) == 400


@pytest.mark.parametrize("past", [0, 2])
@pytest.mark.parametrize("filled", [3, 8])
def test_buffer_resumes_bitwise(filled, past):
    one, other = ClipBuffer(5), ClipBuffer(5)
    one.append(clips(0, filled, past))
    other.load_state_dict(one.state_dict(), [one.own_state()])
    for buffer in (one, other):
        buffer.append(clips(20, 4, past))
    left, right = (b.sample(64, torch.Generator().manual_seed(1)) for b in (one, other))
    for a, b in ((left, right), (left.past, right.past))[: 1 + bool(past)]:
        for name, value in vars(a).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(b, name)), name
    assert left.text == right.text
    if past:  # the rows of the past belong to the others
        seen = left.past.proprio[:, -1, 0]
        assert seen.tolist() == (left.proprio[:, 0] - CHUNK).clamp(min=0).tolist()
    empty = ClipBuffer(5)
    empty.load_state_dict(ClipBuffer(5).state_dict(), [ClipBuffer(5).own_state()])
    assert len(empty) == 0


def test_buffer_complaints_are_one_sentence():
    buffer = ClipBuffer(5)
    with pytest.raises(ValueError, match="no clip was collected yet"):
        buffer.sample(2, torch.Generator())
    with pytest.raises(ValueError, match="capacity=0"):
        ClipBuffer(0)
    buffer.append(clips(0, 2))
    short = ClipDataset(InMemory(EPISODES), HISTORY, FUTURE, CHUNK - 1).at(torch.arange(2))
    with pytest.raises(ValueError, match="actions of the new clips"):
        buffer.append(short)
    assert len(buffer) == 2
    with pytest.raises(ValueError, match="holds 5 clips"):
        ClipBuffer(6).load_state_dict(buffer.state_dict(), [])
