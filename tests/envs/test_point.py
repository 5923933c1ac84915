"""The point environment: a real task, exactly reproducible, solved by its expert."""

import numpy as np
import pytest

from wamrl.envs.check import check_env
from wamrl.envs.point import PointConfig


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_keeps_the_contract_and_its_expert_solves_it_with_noise(stages):
    env = PointConfig(stages=stages).build()
    check_env(env, expert=True)
    expert, rng, solved = env.expert(), np.random.default_rng(0), 0
    for seed in range(20):
        env.reset(seed)
        while True:
            result = env.step(expert.action() + 0.5 * rng.normal(size=2))
            if result.terminated or result.truncated:
                break
        solved += result.success
    assert solved == 20


def test_random_actions_do_not_solve_it():
    env, rng, solved = PointConfig().build(), np.random.default_rng(0), 0
    for seed in range(20):
        env.reset(seed)
        while True:
            result = env.step(rng.uniform(-1, 1, 2))
            if result.terminated or result.truncated:
                break
        solved += result.success
    assert solved <= 4


def test_the_picture_shows_where_things_are():
    env = PointConfig(image_size=64).build()
    env.reset(1)
    env.scene.position = np.array([0.5, 0.5])
    env.scene._goals = np.array([[-0.5, -0.5]])
    frame = env.render()[0].astype(int)
    blue = np.argwhere(frame[..., 2] > frame[..., 0] + 100).mean(0)
    green = np.argwhere(frame[..., 1] > frame[..., 0] + 100).mean(0)
    assert blue[0] < 32 < blue[1] and green[1] < 32 < green[0], "x to the right, y upwards"


@pytest.mark.parametrize(
    "config", [PointConfig(stages=0), PointConfig(image_size=1), PointConfig(horizon=0)]
)
def test_bad_configs_are_refused(config):
    with pytest.raises(ValueError, match="is not possible"):
        config.build()
