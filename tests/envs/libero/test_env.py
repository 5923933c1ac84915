"""LIBERO: the official protocol, exact resets,
robosuite's own physics and pictures, and errors that say what to do.

What needs libero (an environment of its own: scripts/libero.sh) is skipped without it. Assets that
are not at hand are placeholders, so nothing here measures anything on LIBERO.
"""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import libero_placeholders as placeholders
from wamrl.envs.check import check_env
from wamrl.envs.libero import assets as libero_assets
from wamrl.envs.libero.env import HORIZONS, LiberoConfig
from wamrl.envs.libero.simulation import SETTLE_STEPS, axis_angle
from wamrl.envs.libero.suite import LiberoSuiteConfig
from wamrl.types import SPLITS, InitialState

HERE = importlib.util.find_spec("libero") is not None
needs_libero = pytest.mark.skipif(
    not HERE, reason="needs pip install -e '.[libero]' in its own environment"
)
FRESH = (
    "import tests.envs.libero.test_env as t; print(t.trace(t.make('object', 3), 300_000_005, True))"
)
EVAL0 = InitialState(split="eval", index=0).seed


def make(suite: str, task: int, **kw):
    return LiberoConfig(
        suite=suite, task=task, assets=placeholders.assets_for_tests(), **kw
    ).build()


@pytest.fixture(scope="module")
def soup():
    return make("object", 0)


def trace(env, seed: int, render: bool = False) -> str:
    """A digest of everything that is seen and simulated in 10 steps after reset(seed)."""
    rng, digest = np.random.default_rng(seed % 50), hashlib.sha256()
    env.reset(seed)
    for _ in range(10):
        result = env.step(rng.uniform(-1, 1, 7))
        digest.update(str(result).encode() + env.proprio().tobytes())
        digest.update(env.scene.sim.data.qpos.tobytes() + env.scene.sim.data.qvel.tobytes())
        digest.update(env.render().tobytes() if render else b"")
    return digest.hexdigest()


# ---- without libero
@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (LiberoSuiteConfig(suite="all"), "unknown LIBERO suite 'all'"),
        (LiberoSuiteConfig(tasks=(0, 10)), "has no task 10"),
        (LiberoSuiteConfig(views=("top",)), "top"),
    ],
)
def test_impossible_suites_are_told_before_anything_is_built(config, fault):
    with pytest.raises(ValueError, match=fault):
        config.validate()


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            LiberoConfig(suite="kitchen"),
            "unknown LIBERO suite 'kitchen': choose one of spatial, object, goal, 10, 90",
        ),
        (LiberoConfig(suite="object", task=10), "has no task 10: choose 0 to 9"),
        (LiberoConfig(suite="90", task=-1), "env.task=-1 .* >= 0"),
        (LiberoConfig(image_size=1024), "choose 16 to 480"),
        (LiberoConfig(views=("front", "front")), "each once"),
        (LiberoConfig(horizon=0), "env.horizon=0 .* >= 1"),
        (LiberoConfig(assets=Path("no/such/folder")), "give the one that holds LIBERO's scenes/"),
    ],
)
def test_bad_configs_are_refused_with_advice(config, fault):
    with pytest.raises(ValueError, match=fault):
        config.validate()


def test_importing_needs_no_simulator():
    code = (
        "import sys, wamrl.envs.libero.env; sys.exit(bool({'mujoco', 'libero', 'robosuite'} & "
        "set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(libero_assets, "find_spec", lambda name: None)
    libero_assets.import_libero.cache_clear()
    with pytest.raises(
        ValueError, match=r"pip install -e '\.\[libero\]' in an environment of its own"
    ):
        LiberoConfig().build()


def test_the_config_file_has_the_five_keys_and_an_existing_one_is_kept(tmp_path):
    yaml = pytest.importorskip("yaml")
    path = libero_assets.write_config(tmp_path / "new", Path("/package/libero"))
    assert path.name == "config.yaml" and [p.name for p in path.parent.iterdir()] == ["config.yaml"]
    content = yaml.safe_load(path.read_text())
    assert content.keys() == {"benchmark_root", "bddl_files", "init_states", "datasets", "assets"}
    assert content["init_states"] == "/package/libero/init_files"
    path.write_text("mine: 1")
    libero_assets.write_config(tmp_path / "new", Path("/package/libero"))
    assert path.read_text() == "mine: 1"


def test_a_missing_asset_is_named_in_one_sentence(tmp_path):
    for error in (
        FileNotFoundError(2, "No such file", str(tmp_path / "scenes" / "a.xml")),
        ValueError(f"Error: Error opening file '{tmp_path}/scenes/a.xml': No such file"),
    ):
        with pytest.raises(
            ValueError, match="scenes/a.xml is missing from .*download.*assets=PATH"
        ):
            with libero_assets.missing_assets_explained(tmp_path):
                raise error
    with (
        pytest.raises(ValueError, match="^another$"),
        libero_assets.missing_assets_explained(tmp_path),
    ):
        raise ValueError("another")


def test_starts_know_their_split():
    for split in SPLITS:
        assert InitialState.of(InitialState(split=split, index=7).seed) == InitialState(
            split=split, index=7
        )
    for seed in (-1, 400_000_000):
        with pytest.raises(ValueError, match="no start has the seed"):
            InitialState.of(seed)


def test_axis_angle_is_robosuites():
    assert np.allclose(axis_angle(np.array([1.0, 0, 0, 0])), 0)
    half = np.array([np.cos(0.4), 0, np.sin(0.4), 0])
    assert np.allclose(axis_angle(half), [0, 0.8, 0])
    # the sign is kept, so the angle exceeds pi
    assert np.allclose(axis_angle(-half), [0, -(2 * np.pi - 0.8), 0])


def test_placeholders_fill_what_an_xml_names(tmp_path):
    folder = tmp_path / "stable_scanned_objects" / "pot"
    folder.mkdir(parents=True)
    (folder / "pot.xml").write_text(
        '<mujoco><asset><texture file="t.png"/><mesh file="visual/pot.msh" name="pot" scale="2 2 '
        '2"/></asset>'
        '<worldbody><body name="object"><geom type="mesh" mesh="pot" group="1"/>'
        '<geom type="box" size="1 2 3" pos="0 0 4" group="0"/></body></worldbody></mujoco>'
    )
    made = placeholders.fill(tmp_path)
    assert "stable_scanned_objects/pot/t.png" in made and (
        folder / "t.png"
    ).read_bytes().startswith(b"\x89PNG")
    raw = (folder / "visual" / "pot.msh").read_bytes()
    counts = np.frombuffer(raw[:16], np.int32)
    vertices = np.frombuffer(raw[16 : 16 + 12 * counts[0]], np.float32).reshape(-1, 3)
    assert counts.tolist() == [8, 0, 8, 12] and np.allclose(vertices.max(0), [0.5, 1, 3.5])
    assert placeholders.fill(tmp_path) == []


# ---- the protocol
def test_horizons_are_the_published_ones():
    """openpi examples/libero/main.py and OpenVLA run_libero_eval.py."""
    assert (
        HORIZONS == {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
        and SETTLE_STEPS == 10
    )


@needs_libero
@pytest.mark.parametrize("suite", libero_assets.SUITES)
def test_every_task_has_fifty_fixed_initial_states(suite):
    tasks = libero_assets.tasks(suite)
    assert len(tasks) == libero_assets.SUITES[suite] == len({t.name for t in tasks})
    for task in tasks:
        states = libero_assets.init_states(task.init_states)
        assert len(states) == libero_assets.INIT_STATES == 50 and states.dtype == np.float64
        assert task.bddl.is_file() and task.instruction and "_" not in task.instruction


@needs_libero
def test_tasks_are_in_the_official_order():
    from libero.libero.benchmark import get_benchmark

    for suite in libero_assets.SUITES:
        official = get_benchmark(f"libero_{suite}")()
        assert [t.name for t in libero_assets.tasks(suite)] == official.get_task_names()
        assert [t.instruction for t in libero_assets.tasks(suite)] == [
            t.language for t in official.tasks
        ]


@needs_libero
def test_an_init_state_file_cannot_run_code(tmp_path):
    import torch

    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('it ran')",))

    torch.save(Evil(), tmp_path / "evil.pruned_init")
    with pytest.raises(Exception, match="(?i)weights.only"):
        libero_assets.init_states(tmp_path / "evil.pruned_init")


@needs_libero
@pytest.mark.parametrize(
    ("suite", "task"), [(s, t) for s, n in libero_assets.SUITES.items() for t in (0, n - 1)]
)
def test_tasks_load_reset_step_and_render(suite, task):
    env = make(suite, task)
    spec = env.spec
    assert (spec.action_dim, spec.proprio_dim, spec.horizon) == (7, 8, HORIZONS[suite])
    scene = env.scene
    assert spec.stages == len(scene.sim.goals) and spec.instruction == scene.task.instruction
    env.reset(EVAL0)
    assert scene.sim.data.time == pytest.approx(
        libero_assets.init_states(scene.task.init_states)[0][0] + SETTLE_STEPS / 20, abs=1e-6
    )
    rng = np.random.default_rng(0)
    for action in rng.uniform(-0.5, 0.5, (10, 7)):
        assert not env.step(action).terminated
    frames = env.render()
    assert frames.shape == (2, 256, 256, 3) and all(frame.std() > 5 for frame in frames)


@needs_libero
@pytest.mark.parametrize(("suite", "task"), [("object", 2), ("10", 4)])
def test_states_actions_and_pictures_are_those_of_liberos_own_environment(suite, task, tmp_path):
    """OpenVLA's evaluation loop on LIBERO's OffScreenRenderEnv, and ours:
    the same numbers, the same pixels.
    """
    command = (
        f"import tests.envs.libero.test_env as t; t.official_episode({suite!r}, {task}, "
        f"{str(tmp_path)!r})"
    )
    # its GL context and ours do not share a process
    subprocess.run([sys.executable, "-c", command], check=True)
    official = np.load(tmp_path / "official.npz")
    env = make(suite, task)
    env.reset(EVAL0 + 7)
    data = env.scene.sim.data
    for step, action in enumerate(actions()):
        np.testing.assert_allclose(data.qpos, official["qpos"][step], rtol=0, atol=1e-12)
        np.testing.assert_allclose(env.proprio(), official["state"][step], rtol=0, atol=1e-6)
        if step % 6 == 0:
            front, wrist = env.render()
            assert np.array_equal(front, official["front"][step // 6]), (
                "not what OpenVLA and openpi see"
            )
            assert np.array_equal(wrist, official["wrist"][step // 6])
        assert not env.step(action).success


def actions() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (12, 7)).astype(np.float32)


def official_episode(suite: str, task: int, folder: str) -> None:
    """The same with LIBERO's environment, as openpi and OpenVLA use it:
    states and turned pictures.
    """
    libero_assets.import_libero()
    from libero.libero.envs import OffScreenRenderEnv

    libero_assets.use_assets(placeholders.assets_for_tests())
    chosen = libero_assets.tasks(suite)[task]
    env = OffScreenRenderEnv(bddl_file_name=str(chosen.bddl), camera_heights=256, camera_widths=256)
    env.seed(0)
    env.reset()
    obs = env.set_init_state(libero_assets.init_states(chosen.init_states)[7])
    for _ in range(10):
        obs, *_ = env.step([0, 0, 0, 0, 0, 0, -1])
    seen: dict[str, list] = {"qpos": [], "state": [], "front": [], "wrist": []}
    for step, action in enumerate(actions()):
        turn = quat2axisangle(obs["robot0_eef_quat"].copy())
        seen["qpos"].append(env.scene.sim.data.qpos.copy())
        seen["state"].append(
            np.concatenate([obs["robot0_eef_pos"], turn, obs["robot0_gripper_qpos"]])
        )
        if step % 6 == 0:
            seen["front"].append(obs["agentview_image"][::-1, ::-1])
            seen["wrist"].append(obs["robot0_eye_in_hand_image"][::-1, ::-1])
        obs, *_ = env.step(action)
    np.savez(
        Path(folder) / "official.npz", **{name: np.stack(values) for name, values in seen.items()}
    )


def quat2axisangle(quat):
    """As in openpi and OpenVLA: quaternion x, y, z, w."""
    w = min(max(quat[3], -1.0), 1.0)
    length = np.sqrt(1.0 - w * w)
    return np.zeros(3) if np.isclose(length, 0.0) else quat[:3] * 2.0 * np.arccos(w) / length


# ---- the contract
@needs_libero
def test_a_seed_gives_bitwise_the_same_episode_whatever_happened_before():
    env = make("object", 3)
    first = trace(env, EVAL0 + 5, True)
    assert trace(env, EVAL0 + 55, True) == first, "the fifty states come round again"
    expert = env.expert()
    env.reset(11)
    for _ in range(60):  # long enough to grasp something
        if env.step(expert.action()).terminated:
            break
    np.random.seed(3)
    assert trace(env, EVAL0 + 5, True) == first, "an earlier episode shows through"
    there = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    assert there == first, "a fresh process differs"


@needs_libero
def test_turning_on_the_stove_does_not_outlive_the_episode():
    env = make("10", 2)
    first = trace(env, 5, True)
    env.reset(5)
    joint = env.scene.sim.data.joint("flat_stove_1_button")
    joint.qpos[:] = 1.5
    result = env.step(np.zeros(7))
    assert result.stages == 1 and not result.success
    env.step(np.zeros(7))
    assert env.step(np.zeros(7)).stages == 1
    assert trace(env, 5, True) == first


@needs_libero
def test_only_the_eval_split_has_the_official_states(soup):
    nq = soup.scene.sim.model.nq
    official = {
        tuple(np.round(s[10 : 1 + nq], 3)) for s in libero_assets.init_states(soup.task.init_states)
    }
    seen = set()
    for split in ("demo", "heldout", "train"):
        for index in range(4):
            before = np.random.get_state()[1].copy()
            soup.reset(InitialState(split=split, index=index).seed)
            assert np.array_equal(before, np.random.get_state()[1]), (
                "the caller's random state was touched"
            )
            seen.add(tuple(np.round(soup.scene.sim.data.qpos[9:], 3)))
    assert len(seen) == 12 and not seen & official


@needs_libero
def test_rendering_changes_nothing(soup):
    env, states = soup, []
    for render in (True, False):
        env.reset(3)
        for _ in range(5):
            env.step(np.full(7, 0.3))
            env.render() if render else None
        states.append(np.concatenate([env.scene.sim.data.qpos, env.scene.sim.data.qvel]))
    assert np.array_equal(*states)


@needs_libero
def test_pictures_are_upright(soup):
    """The robot stands at the far end and comes from above, things lie on the floor below it."""
    soup.reset(EVAL0)
    front = soup.render()[0].astype(int)
    white = (front.min(-1) > 150) & (front.max(-1) - front.min(-1) < 25)  # the arm
    rows = np.arange(256)
    assert white.sum() > 200 and rows @ white.sum(1) / white.sum() < 110


@needs_libero
def test_the_contract_checker_passes_with_the_expert():
    check_env(make("object", 3, image_size=96), expert=True, limit=60)


@needs_libero
def test_the_expert_comes_back_after_a_drop(soup):
    soup.reset(EVAL0)
    expert, carried, opened = soup.expert(), 0, 0
    for _ in range(soup.spec.horizon):
        action = expert.action()
        carried += soup.scene.sim.held("alphabet_soup_1")
        if carried >= 8 and opened < 12:
            action[6], opened = -1.0, opened + 1  # somebody opens the hand on the way up
        result = soup.step(action)
        if result.terminated or result.truncated:
            break
    assert result.success and result.counters[0] >= 2 and result.counters[1] >= 1


@needs_libero
def test_tasks_without_an_expert_say_so():
    with pytest.raises(ValueError, match="has no scripted expert"):
        make("goal", 0).expert()


@needs_libero
def test_missing_assets_are_one_sentence(tmp_path):
    with pytest.raises(
        ValueError, match=r"libero_floor_base_style.xml is missing from .*assets=PATH"
    ):
        LiberoConfig(assets=tmp_path).build()


@needs_libero
def test_everything_can_be_a_placeholder(tmp_path):
    placeholders.fill(tmp_path)
    for suite, task in (("spatial", 0), ("10", 3), ("90", 80)):
        env = LiberoConfig(suite=suite, task=task, assets=tmp_path, image_size=64).build()
        env.reset(EVAL0)
        env.step(np.zeros(7))
        assert env.render().std() > 5


@needs_libero
def test_a_suite_plays_each_task_from_its_own_fixed_states():
    assets = placeholders.assets_for_tests()
    suite = LiberoSuiteConfig(suite="object", tasks=(0, 3), assets=assets, image_size=64).build()
    assert suite.spec.tasks == ("0", "3") and len(set(suite.spec.instructions)) == 2
    for index, (task, state) in enumerate([(0, 0), (3, 0), (0, 1), (3, 1)]):
        alone = make("object", task, image_size=64)
        alone.reset(InitialState(split="eval", index=state).seed)
        suite.reset(InitialState(split="eval", index=index).seed)
        assert suite.instruction == alone.spec.instruction
        assert np.array_equal(suite.proprio(), alone.proprio())
        assert np.array_equal(suite.render(), alone.render())
