"""What other people's environments do: pictures in other forms, success in the last info only,
flat keys, no render(). Accepted where there is one reading, else one sentence that says how.
"""

import numpy as np
import pytest

from tests.support.command_line import refused
from tests.support.odd_gym import slide
from wamrl.envs.check import check_env
from wamrl.runtime.images import resize, rgb

RIGHT = np.array([5, 0], np.float32)


def play(env, action, most=100):
    """The results of an episode under one action."""
    results = []
    while not results or not (results[-1].terminated or results[-1].truncated):
        results.append(env.step(action))
        assert len(results) <= most
    return results


@pytest.mark.parametrize("mode", ["float", "chw", "grey", "grey2d", "rgba", "torch", "int64"])
def test_pictures_of_other_forms_are_the_same_pictures(mode):
    env = slide(mode).build()
    env.reset(3)
    plain = env.scene.env.unwrapped.picture()
    assert np.array_equal(env.render()[0], resize(plain, (16, 16)))
    assert np.array_equal(rgb(env.scene.env.unwrapped.odd(plain), "x"), plain)


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("stack", r"\(4, 48, 64, 3\), not one picture: .*of a stack the last one"),
        ("bright_float", "float32 from 0 to 255, expected 0 to 1: give uint8"),
        ("glass", "partly transparent: blend it"),
        ("blind", "has no render.*env.image_keys"),
        ("vague", "'is_success'.* is 0.7, not success"),
    ],
)
def test_what_has_two_readings_is_one_sentence(mode, sentence):
    with pytest.raises(ValueError, match=sentence):
        slide(mode).build()


@pytest.mark.parametrize(
    "picture", [np.zeros((3, 9, 3), np.uint8), np.zeros((9, 9, 2), np.uint8), "a.png", [[None]]]
)
def test_no_picture(picture):
    with pytest.raises(ValueError, match=r"^it is .*\(H, W, 3\)"):
        rgb(picture, "it")


def test_flat_keys_of_lerobot_are_found():
    env = slide("flat").build()
    check_env(env)
    assert env.spec.views == ("top",) and env.spec.proprio_dim == 2


def test_success_in_the_last_info_only(capfd):
    env = slide("final_only").build()
    assert play_reset(env, 0 * RIGHT).truncated  # before any end: nothing is known of the key
    assert capfd.readouterr().err.count("info has never had 'is_success'") == 1
    check_env(env)
    env.reset(3)
    assert play(env, RIGHT)[-1].success and play_reset(env, -RIGHT).terminated
    clock = play_reset(env, 0 * RIGHT)
    assert clock.truncated and not clock.success
    assert not capfd.readouterr().err


def play_reset(env, action):
    env.reset(3)
    last = play(env, action)[-1]
    assert not last.success
    return last


def test_no_success_at_an_end_is_an_error_that_does_not_advise_terminated():
    env = slide("silent_end").build()
    env.reset(3)
    with pytest.raises(ValueError, match="no success 'is_success' at the end of an") as caught:
        play(env, RIGHT)
    assert "terminated" not in str(caught.value)


@pytest.mark.parametrize("mode", ["none", "torch", "nested"])
def test_success_comes_in_many_forms(mode):
    key = "episode/success" if mode == "nested" else "is_success"
    env = slide(mode, success_key=key).build()
    env.reset(3)
    assert play(env, RIGHT)[-1].success and not play_reset(env, 0 * RIGHT).success


def test_stages_out_of_bounds_are_named():
    with pytest.raises(ValueError, match=r"info\['stages'\] is 3: with env.stages=2 it must"):
        slide("stages", stages=2).build()
    with pytest.raises(ValueError, match="is None: with env.stages=2"):
        slide(stages=2).build()


def test_it_says_where_things_come_from():
    said = slide("stateless").build().describe()
    assert said[0] == "success: info['is_success']" and "image = pixels" in said[1]
    assert "invented" in said[2]
    assert "state: agent_pos" in slide().build().describe()


def test_an_environment_without_pictures_says_so_on_the_command_line(monkeypatch):
    monkeypatch.setattr("tests.support.odd_recipes.MODE", "blind")
    assert "env.image_keys" in refused("check", "tests.support.odd_recipes:odd")
