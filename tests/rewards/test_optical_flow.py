"""Optical flow: the motion of real frames, its units, and the sentences for what is missing."""

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wamrl.envs.point import PointConfig
from wamrl.rewards.check import check_reward
from wamrl.rewards.optical_flow import OpticalFlow, OpticalFlowConfig


def moved(pixels: float, size: int = 64) -> Tensor:
    """A picture of the point environment with the disc `pixels`
    to the right of the middle, float32 (H, W, 3).
    """
    env = PointConfig(image_size=size).build()
    env.reset(0)
    env.scene._goals[:] = (0.0, 0.8)  # out of the way
    env.scene.position = np.array([pixels / (size / 2) * 1.15, -0.3])
    return torch.from_numpy(env.render()[0].astype(np.float32) / 255)


def distance(a: Tensor, b: Tensor, last: Tensor, **config) -> float:
    similarity = OpticalFlowConfig(**config).build()
    return similarity.distance(a[None, None, None], b[None, None, None], last[None, None]).item()


@pytest.mark.parametrize("shape", [(2, 2, 1, 32, 32), (2, 2, 2, 9, 16), (2, 3, 1, 160, 130)])
def test_it_keeps_the_contract(shape):
    check_reward(OpticalFlowConfig(), shape=shape)


def test_the_flow_is_that_of_the_disc():
    before, after = (moved(x).permute(2, 0, 1)[None] for x in (0.0, 4.0))
    similarity = OpticalFlowConfig().build()
    first, second = (similarity.prepare(x.permute(0, 2, 3, 1)) for x in (before, after))
    flow = similarity.estimate(first, second)[0] / 128 * 64  # px of the frame
    assert flow.shape == (2, 128, 128)
    changed = (first - second).abs().sum((0, 1)) > 0.5
    inside = changed & (torch.arange(128) < 64 + 8)  # where the disc was, not what it uncovers
    assert (
        flow[0][inside].median() == pytest.approx(4.0, abs=0.5)
        and abs(flow[1][inside].median()) < 0.3
    )
    assert flow[:, :20].abs().mean() < 0.3  # a corner without motion


def test_a_motion_in_the_wrong_direction_is_further_off_than_a_short_one():
    still, right, short, left = (moved(x) for x in (0.0, 4.0, 2.0, -4.0))
    far, near, none = (distance(x, right, still) for x in (left, short, right))
    assert far > 2 * near > 0 and none == 0
    assert distance(still, right, still) > near  # a copy of the last frame does not move at all


def test_distances_are_in_image_widths():
    """The same scene at another resolution has about the same distance."""
    values = [distance(moved(-k, 16 * k), moved(k, 16 * k), moved(0.0, 16 * k)) for k in (3, 4, 6)]
    assert max(values) < 1.5 * min(values)
    # px, to the right and down
    brighter = OpticalFlow(lambda first, second: 64 * second[:, :2], 128)
    frames = torch.zeros(1, 1, 1, 64, 64, 3)
    assert brighter.distance(frames + 0.5, frames, frames[:, 0]).item() == pytest.approx(
        2 * (32 / 128) ** 2
    )


def test_the_number_of_threads_does_not_matter():
    before, threads = cv2.getNumThreads(), []
    try:
        for n in (1, 2, 4):
            cv2.setNumThreads(n)
            threads.append(distance(moved(-3.0), moved(3.0), moved(0.0), size=256))
    finally:
        cv2.setNumThreads(before)
    assert threads[0] > 0 and len(set(threads)) == 1


@pytest.mark.parametrize("change", [{"size": 64}, {"batch": 0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match="is not possible: give a number >="):
        OpticalFlowConfig(**change).build()


# --- what is missing


def test_a_missing_opencv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[rewards\]'"):
        OpticalFlowConfig().build()


def test_a_missing_torchvision_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        ValueError, match="needs a torchvision that loads .* or choose backend='dis'"
    ):
        OpticalFlowConfig(backend="raft").build()


# --- RAFT's adapter,
# with a network of the same interface (the real one was checked by hand: see LOG.md)


class Shift(nn.Module):
    """As torchvision's RAFT: (N, 3, H, W) in [-1,
    1] twice -> list of flows in px, the last is the best.
    """

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        assert first.shape[2] % 8 == first.shape[3] % 8 == 0 and min(first.shape[2:]) >= 128
        assert (
            first.min() >= -1 and first.max() <= 1 and (first.min() < -0.5 or second.min() < -0.5)
        )
        assert len(first) <= 3 and not self.training
        flow = (second - first).mean(1, keepdim=True).expand(-1, 2, -1, -1) * self.scale
        return [flow * 100, flow]


class Weights:
    class DEFAULT:
        url = "https://example.org/raft.pth"


@pytest.fixture
def raft(monkeypatch):
    def build(*, weights=None, progress=True):
        if weights is not None:
            raise OSError("no network")
        return Shift()

    package, models, flow = (
        type(sys)(f"torchvision{x}") for x in ("", ".models", ".models.optical_flow")
    )
    flow.raft_small = flow.raft_large = build
    flow.Raft_Small_Weights = flow.Raft_Large_Weights = Weights
    package.models, models.optical_flow = models, flow
    for module in (package, models, flow):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_raft_reads_local_weights(raft, tmp_path, suffix):
    path = tmp_path / f"raft.{suffix}"
    state = {"scale": torch.tensor(3.0)}
    if suffix == "pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    config = OpticalFlowConfig(backend="raft", weights=str(path), batch=3)
    check_reward(config)
    black, white = torch.zeros(1, 1, 1, 64, 64, 3), torch.ones(1, 1, 1, 64, 64, 3)
    got = config.build().distance(white, black, black[:, 0]).item()
    # both directions; black to white is 2 in [-1, 1]
    assert got == pytest.approx(2 * (2 * 3 / 128) ** 2)


def test_raft_without_weights_says_where_to_get_them(raft, tmp_path):
    with pytest.raises(
        ValueError, match="could not be downloaded: get https://example.org/raft.pth elsewhere"
    ):
        OpticalFlowConfig(backend="raft").build()
    config = OpticalFlowConfig(backend="raft", weights=str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match="no RAFT weights at"):
        config.build()
    for suffix in ("pth", "safetensors"):
        bad = tmp_path / f"bad.{suffix}"
        bad.write_bytes(b"x" * 64)
        with pytest.raises(
            ValueError, match="does not hold the weights of torchvision's raft_small"
        ):
            replace(config, weights=str(bad)).build()
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights"):
        replace(config, weights=str(tmp_path / "other.pth")).build()
