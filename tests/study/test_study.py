"""The study: killed anywhere it ends in the same table,
finished cells are left alone, errors stay in their cell.
"""

import csv
import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import tiny_study
from tests.support.command_line import refused, wamrl
from tests.support.easy import EasyConfig
from wamrl.data import demos
from wamrl.recipes import find
from wamrl.recipes import studies as recipes
from wamrl.rewards.pixels import PixelConfig
from wamrl.rollout.collect import collect
from wamrl.runs.demonstrations import env_spec
from wamrl.runs.folder import open_model
from wamrl.runtime import checkpoint
from wamrl.runtime.files import LOCK, locked
from wamrl.runtime.log import read_metrics
from wamrl.study import Cell, StudyConfig
from wamrl.study.cells import BUSY, result, run_cell, tidy
from wamrl.study.runner import Runner, open_study, visible_devices, write_report
from wamrl.study.tables import COMPARISON_COLUMNS, RESULT_COLUMNS
from wamrl.train import improve
from wamrl.types import InitialState

ROOT = Path(__file__).parents[2]
STUDY = tiny_study.study()


def prepare(study: StudyConfig, out: Path) -> Path:
    """Put the demonstrations in place (what `record` would write),
    recorded once in this process: it is quicker.
    """
    for task in study.tasks:
        for split, name in (("demo", "demos"), ("heldout", "heldout")):
            episodes = demos.collect(replace(task.config.demos(split), n_workers=0))
            for seed in study.seeds:
                demos.save(
                    episodes,
                    env_spec(task.config),
                    Cell(task.name, "base", seed).folder(out) / name,
                )
    return out


def rows(out: Path, name: str = "results.csv") -> list[dict]:
    with open(out / name, encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def finish(study: StudyConfig, out: Path) -> None:
    for cell in study.cells():
        assert run_cell(study, cell, out)
    write_report(study, out, "wamrl study tiny")


def wait_until_free(out: Path, patience_s: float = 30) -> None:
    """Killed processes hold their locks until the kernel has taken them apart."""
    deadline = time.monotonic() + patience_s
    for cell in STUDY.cells():
        while True:
            with locked(cell.folder(out)) as mine:
                if mine:
                    break
            assert time.monotonic() < deadline, f"a process of the killed study still holds {cell}"
            time.sleep(0.02)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in folder.rglob("*")
        if p.is_file() and p.name != LOCK
    }


def progress(out: Path) -> int:
    """Cells begun, logs begun, checkpoints written, cells finished."""
    names = ("config.json", "metrics.jsonl", "checkpoints/*", "summary.json")
    return sum(len(list(out.glob(f"*/*/*/{name}"))) for name in names)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The study without any interruption."""
    out = tmp_path_factory.mktemp("whole") / "study"
    open_study(STUDY, out)
    prepare(STUDY, out)
    finish(STUDY, out)
    return out


def test_a_study_leaves_tables_figures_and_small_cells(whole):
    names = {p.name for p in whole.iterdir() if p.is_file()}
    figures = {f"{kind}_{task}.png" for kind in ("arms", "learning") for task in ("near", "far")}
    figures.add("horizon_near.png")  # evaluated at two lengths, far at one
    tables = {"report.md", "results.csv", "comparisons.csv"}
    assert names == {"study.json", "about.json"} | tables | figures
    table = rows(whole)
    assert (
        len(table) == 12
        and [r["arm"] for r in table[:6]] == ["base"] * 2 + ["actor_success"] * 2 + ["wamrl"] * 2
    )
    for row in table:
        cell = Cell(row["task"], row["arm"], int(row["seed"]))
        summary = json.loads((cell.folder(whole) / "summary.json").read_text())
        assert (
            int(row["successes"]) == sum(summary["arms"]["after"]["success"])
            and int(row["episodes"]) == 4
        )
        assert (int(row["control_steps"]) == 0) == (row["arm"] == "base")
        assert int(row["control_steps"]) == summary["control_steps"]
    kept = {p.name for p in whole.rglob("checkpoints/*")}
    assert kept == {"base"}, "checkpoints and clip buffers of finished cells are deleted"
    report = (whole / "report.md").read_text()
    assert "12 of 12 cells finished" in report and "Claim 3" in report and "## Recovery" in report
    lines = [r for r in rows(whole, "comparisons.csv") if r["seed"] == "all"]
    assert {(r["task"], r["arm"], r["against"]) for r in lines} == {
        (t, a, b)
        for t in ("near", "far")
        for a, b in (("actor_success", "base"), ("wamrl", "base"), ("wamrl", "actor_success"))
    }


def test_control_steps_are_those_of_the_log(whole):
    folder = Cell("near", "wamrl", 1).folder(whole)
    logged = [r["rollout/steps"] for r in read_metrics(folder) if "rollout/steps" in r]
    assert len(logged) == 2 and json.loads((folder / "summary.json").read_text())[
        "control_steps"
    ] == sum(logged)


def test_the_curve_begins_with_the_base_and_ends_with_the_result(whole):
    cell = Cell("near", "wamrl", 1)
    found = result(STUDY, cell, whole)
    base = result(STUDY, cell.base, whole)
    episodes = [
        r["rollout/episodes"] for r in read_metrics(cell.folder(whole)) if "rollout/episodes" in r
    ]
    assert [x for x, _ in found.evaluated] == [0, episodes[0], sum(episodes)]
    assert (found.evaluated[0][1], found.evaluated[-1][1]) == (base.rate, found.rate)
    assert len(found.curve) == 2 and base.evaluated == base.curve == ()


def test_every_arm_starts_from_the_same_base_and_states(whole):
    for cell in STUDY.cells():
        if cell.arm != "base":
            arms = json.loads((cell.folder(whole) / "summary.json").read_text())["arms"]
            base = json.loads((cell.base.folder(whole) / "summary.json").read_text())["arms"][
                "after"
            ]
            assert arms["before"] == base and arms["after"]["starts"] == base["starts"]


def test_every_model_is_evaluated_at_other_lengths_on_the_same_states(whole):
    ((goals, env),) = STUDY.tasks[0].lengths
    starts = [InitialState(split="eval", index=i) for i in range(4)]
    for cell in STUDY.cells():
        summary = json.loads((cell.folder(whole) / "summary.json").read_text())
        if cell.task == "far":
            assert "lengths" not in summary
            continue
        ((key, found),) = summary["lengths"].items()
        assert (key, found["starts"], found["episodes"]) == ("2", [0, 1, 2, 3], 4)
        assert sum(found["success"]) == found["successes"]
        assert found["sampler"] == summary["arms"]["after"]["sampler"]
        assert result(STUDY, cell, whole).lengths[2].tolist() == found["success"]
        if cell.arm != "base":
            continue
        cfg = replace(STUDY.config(cell), env=env)  # the arms' models are deleted
        wam = open_model(cfg, cell.folder(whole) / "checkpoints" / "base")
        with cfg.build_pool() as pool:
            assert pool.spec.stages == goals
            again = collect(
                wam, pool, starts, cfg.flow.at(1.0), seed=cell.seed, sampler=wam.sampler
            )
        assert again.success.int().tolist() == found["success"]


def test_lengths_may_come_later_but_never_mix(whole, tmp_path):
    """A folder begun without them goes on; a cell evaluated in another environment is no result."""
    near = STUDY.tasks[0]
    open_study(replace(STUDY, tasks=(replace(near, lengths=()), STUDY.tasks[1])), tmp_path)
    open_study(STUDY, tmp_path)
    longer = ((2, replace(near.lengths[0][1], horizon=50)),)
    other = replace(STUDY, tasks=(replace(near, lengths=longer), STUDY.tasks[1]))
    with pytest.raises(ValueError, match=r"at K = 2 in another environment \(env.horizon is None"):
        result(other, Cell("near", "wamrl", 0), whole)


def test_lengths_that_the_model_cannot_act_at_are_refused_before_anything_is_recorded(tmp_path):
    near = STUDY.tasks[0]
    bad = [
        (((2, EasyConfig(stages=3)),), "K = 2 has an environment of 3 sub-goals"),
        (((1, EasyConfig()),), "other than the task's"),
        (
            ((2, EasyConfig(stages=2, image_size=32)),),
            r"has image_hw \(32, 32\) and the task \(16, 16\)",
        ),
    ]
    for lengths, match in bad:
        study = replace(STUDY, tasks=(replace(near, lengths=lengths),))
        study.validate()
        with pytest.raises(ValueError, match=match):
            run_cell(study, Cell("near", "base", 0), tmp_path)
    assert not list(tmp_path.rglob("demos"))


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("kills", "seeds"), [(1, (0,)), pytest.param(10, (0, 1), marks=pytest.mark.faults)]
)
def test_killed_at_random_points_and_resumed_it_gives_the_same_table(kills, seeds, whole, tmp_path):
    """kill -9 of the runner and all of its processes, when a random number of things has been
    written; it has finished all but these seeds of one of the two tasks before.
    """
    out = tmp_path / "study"
    begun = replace(STUDY, tasks=(random.choice(STUDY.tasks),), seeds=seeds)
    open_study(STUDY, out)
    prepare(begun, out)
    for cell in set(STUDY.cells()) - set(begun.cells()):
        shutil.copytree(cell.folder(whole), cell.folder(out))
    for _ in range(kills):
        kill_the_runner(out, random.randint(1, 10 // kills), tmp_path / "log")
    done = {p.parent: state(p.parent) for p in out.rglob("summary.json")}
    print(f"{begun.cells()[0]}: killed {kills} times, with {len(done)} of 12 cells finished")
    assert len(done) < 12
    finish(STUDY, out)
    assert rows(out) == rows(whole)
    assert (out / "comparisons.csv").read_bytes() == (whole / "comparisons.csv").read_bytes()
    for folder, files in done.items():
        assert {k: v for k, v in state(folder).items() if k in files} == files, folder


def kill_the_runner(out: Path, more: int, said: Path) -> None:
    """Start the study's runner there, and kill it and all of its processes when it has written so
    many things more.
    """
    target = progress(out) + more
    command = [
        sys.executable,
        "-m",
        "wamrl.cli",
        "study",
        "tests.support.tiny_study:study",
        "--out",
        str(out),
    ]
    with open(said, "w", encoding="utf-8") as log:
        runner = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        while progress(out) < target and runner.poll() is None:
            time.sleep(0.02)
        assert runner.poll() is None, said.read_text()
    finally:
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    wait_until_free(out)


@pytest.mark.parametrize("after", [1, 2])
def test_a_cell_stopped_between_iterations_resumes_bitwise(whole, tmp_path, monkeypatch, after):
    """after=1: in the middle of the second iteration; after=2: in the final evaluation."""
    cell = Cell("near", "wamrl", 0)
    shutil.copytree(cell.base.folder(whole), cell.base.folder(tmp_path))
    train = sys.modules[improve.__module__]
    iterate = train.iterate

    def stop(state, *args):
        found = iterate(state, *args)
        if state.iteration > after:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        if after == 1:
            patch.setattr(train, "iterate", stop)
        else:
            patch.setattr(
                "wamrl.study.cells.measure_after",
                lambda *a: (_ for _ in ()).throw(KeyboardInterrupt),
            )
        with pytest.raises(KeyboardInterrupt):
            run_cell(STUDY, cell, tmp_path)
    assert checkpoint.load(checkpoint.latest(cell.folder(tmp_path)))["iteration"] == after
    assert not (cell.folder(tmp_path) / "summary.json").exists()
    assert run_cell(STUDY, cell, tmp_path)
    ours, theirs = (
        json.loads((cell.folder(o) / "summary.json").read_text()) for o in (tmp_path, whole)
    )
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


@pytest.mark.parametrize("keep_models", [False, True])
def test_the_best_and_the_final_model_are_kept_on_request(tmp_path, keep_models):
    for name in ("base", "best", "final", "step-00000002", "sft-resume"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    tidy(tmp_path, keep_models)
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == ({"base", "best", "final"} if keep_models else {"base"})


def test_drafts_of_a_killed_process_are_deleted(tmp_path):
    (tmp_path / ".demos-0a1b2c3d.tmp").mkdir()
    (tmp_path / "checkpoints" / ".best-0a1b2c3d.old").mkdir(parents=True)
    (tmp_path / ".summary.json-0a1b2c3d.tmp").write_text("half")
    (tmp_path / ".lock").write_text("")
    tidy(tmp_path, False)
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints", ".lock"}
    assert not list((tmp_path / "checkpoints").iterdir())


def test_finished_cells_are_never_run_again(whole, monkeypatch):
    before = state(whole)
    monkeypatch.setattr("wamrl.study.cells.open_state", None)  # nothing could be trained
    assert all(run_cell(STUDY, cell, whole) for cell in STUDY.cells())
    runner = Runner(STUDY, whole, ["false"])
    assert runner.todo == [] and runner.run() == {}
    assert state(whole) == before


def test_an_error_in_one_arm_leaves_the_others_alone(whole, tmp_path, monkeypatch):
    study, out = tiny_study.broken(), tmp_path / "study"
    open_study(study, out)
    base = Cell("near", "base", 0)
    shutil.copytree(base.folder(whole), base.folder(out))
    before = state(base.folder(out))
    monkeypatch.chdir(ROOT)
    code, shown, error = wamrl("study", "tests.support.tiny_study:broken", "--out", out)
    assert code == 1 and "near/crash/0" in error and "broken on purpose" in error
    assert "near/actor_success/0" not in error
    assert "broken on purpose" in (Cell("near", "crash", 0).folder(out) / "log.txt").read_text()
    assert [(r["arm"], r["seed"]) for r in rows(out)] == [("base", "0"), ("actor_success", "0")]
    report = (out / "report.md").read_text()
    assert "2 of 3 cells" in report and "Not finished" in report and "near/crash/0" in report
    assert state(base.folder(out)) == before and "[2/3] near/actor_success/0" in shown


def test_arms_of_a_failed_base_are_named_and_not_started(tmp_path):
    study = replace(tiny_study.broken(), jobs=1)
    failed = Runner(
        study, tmp_path, [sys.executable, "-c", "import sys; sys.exit('no simulator here')"]
    ).run()
    assert {str(c) for c in failed} == {"near/base/0", "near/crash/0", "near/actor_success/0"}
    assert "no simulator here" in failed[Cell("near", "base", 0)]
    assert failed[Cell("near", "crash", 0)] == "its base failed"


def test_a_cell_killed_by_the_system_is_started_again_but_not_for_ever(tmp_path):
    study = replace(tiny_study.broken(), jobs=1)
    code = "import os; open('starts', 'a').write('x'); os.kill(os.getpid(), 9)"
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        failed = Runner(study, tmp_path / "study", [sys.executable, "-c", code]).run()
    finally:
        os.chdir(here)
    assert (tmp_path / "starts").read_text() == "xxx" and "exit code -9" in failed[
        Cell("near", "base", 0)
    ]


def test_two_runners_never_run_one_cell(tmp_path):
    cell = Cell("near", "base", 0)
    with locked(cell.folder(tmp_path)) as mine:
        assert mine and not run_cell(STUDY, cell, tmp_path)
        with locked(cell.folder(tmp_path)) as second:
            assert not second
    with open(cell.folder(tmp_path) / ".lock", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again
    out = tmp_path / "study"
    open_study(STUDY, out)
    with locked(cell.folder(out)):
        assert (
            wamrl("study", "tests.support.tiny_study:study", "--out", out, "--cell", cell)[0]
            == BUSY
        )


def test_another_study_in_the_folder_is_refused(tmp_path):
    open_study(STUDY, tmp_path)
    open_study(replace(STUDY, jobs=7, keep_models=True), tmp_path)  # how it runs may change
    with pytest.raises(ValueError, match=r"study.seeds is \[0, 1\] there and \[0\] here"):
        open_study(replace(STUDY, seeds=(0,)), tmp_path)
    near = STUDY.tasks[0]
    longer = replace(near.config, sft=replace(near.config.sft, steps=7))
    with pytest.raises(
        ValueError, match=r"study.tasks.near.arms.actor_success.sft.steps is 6 there and 7 here"
    ):
        open_study(replace(STUDY, tasks=(replace(near, config=longer), STUDY.tasks[1])), tmp_path)
    (tmp_path / "elsewhere" / "things").mkdir(parents=True)
    with pytest.raises(ValueError, match="no study.json"):
        open_study(STUDY, tmp_path / "elsewhere")


def test_unfair_and_impossible_studies_are_refused():
    near, arm = STUDY.tasks[0], STUDY.arms[0]

    def more(cfg):
        return replace(cfg, train=replace(cfg.train, iterations=9))

    bad = [
        (replace(STUDY, arms=(replace(arm, change=more),), claims=()), "changes more than flow"),
        (replace(STUDY, arms=(arm, arm), claims=()), "must be unique"),
        (replace(STUDY, seeds=()), "at least one task and one seed"),
        (replace(STUDY, tasks=(replace(near, arms=("nobody",)),)), "unknown arms"),
        (replace(STUDY, arms=(arm,)), "claim 3 compares arms that the study lacks"),
        (replace(STUDY, tasks=(replace(near, name="a/b"),)), "must be unique, of letters"),
        (replace(STUDY, tasks=(replace(near, lengths=near.lengths * 2),)), "give each K >= 1 once"),
        (
            replace(STUDY, tasks=(replace(near, lengths=((0, EasyConfig()),)),)),
            "give each K >= 1 once",
        ),
        (
            replace(STUDY, tasks=(replace(near, lengths=((9, EasyConfig(stages=9)),)),)),
            "stages=9 is not possible",
        ),
    ]
    for study, match in bad:
        with pytest.raises(ValueError, match=match):
            study.validate()
    STUDY.validate()


def test_only_takes_the_bases_along():
    assert [str(c) for c in STUDY.cells("far/wamrl/1")] == ["far/base/1", "far/wamrl/1"]
    assert {c.task for c in STUDY.cells("near/*/*")} == {"near"} and len(
        STUDY.cells("near/*/*")
    ) == 6
    assert [str(c) for c in STUDY.cells("*/base/0")] == ["near/base/0", "far/base/0"]
    some = replace(STUDY, tasks=(replace(STUDY.tasks[0], arms=("wamrl",)), STUDY.tasks[1]))
    assert "near/actor_success/0" not in map(str, some.cells()) and len(some.cells()) == 10


def test_bad_words_get_one_sentence(tmp_path):
    assert "which study?" in refused("study", code=2)
    assert "unknown study 'nothing'" in refused("study", "nothing", code=2)
    assert "no cell of" in refused(
        "study", "tests.support.tiny_study:study", "--out", tmp_path / "a", "--only", "x/y/z"
    )
    assert "has no cell near/base/7" in refused(
        "study", "tests.support.tiny_study:study", "--out", tmp_path / "a", "--cell", "near/base/7"
    )
    assert "finished yet" in refused(
        "study", "tests.support.tiny_study:study", "--out", tmp_path / "a", "--report-only"
    )


@pytest.mark.parametrize("name", sorted(find.listed("StudyConfig")))
def test_the_studies_of_the_package_are_fair_and_complete(name):
    study = find.build(name, StudyConfig)
    study.validate()
    assert len(study.seeds) >= 3
    wanted = {  # reward, policy gradient, video SFT, cloning, SDE
        "actor_success": ("success", True, False, False, "marginal"),
        "actor_recon": ("paper", True, False, False, "marginal"),
        "video_sft": ("success", False, True, False, "marginal"),
        "bc_success": ("success", False, False, True, "marginal"),
        "demos_only": ("success", False, True, True, "marginal"),
        "joint": ("success", True, True, False, "marginal"),
        "actor_clone": ("success", True, False, True, "marginal"),
        "wamrl": ("success", True, True, True, "marginal"),
        "wamrl_no_kl": ("success", True, True, True, "marginal"),
        "wamrl_paper": ("paper", True, True, False, "plain"),
    }
    names = {a.name for a in study.arms}
    if any(task.arms is None for task in study.tasks):
        assert wanted.keys() <= names
    else:  # every task has chosen its own
        assert names == {arm for task in study.tasks for arm in task.arms}
    for task in study.tasks:
        configs = {a.name: a.change(task.config) for a in study.arms_of(task)}
        assert {"actor_success", "wamrl"} <= configs.keys(), task.name
        for arm in wanted.keys() & configs.keys():
            train, flow = configs[arm].train, configs[arm].flow
            halves = [part in train.learn for part in ("policy", "world", "clone")]
            assert (train.reward.mode, *halves, flow.sde) == wanted[arm], (task.name, arm)
            assert (train.world.demo_share == 1) == (arm == "demos_only"), (task.name, arm)
            assert (train.world.kl == 0) == (arm == "wamrl_no_kl"), (task.name, arm)


def test_another_reward_adds_an_arm_and_a_claim():
    study = recipes._study("ablation", STUDY.tasks, {"plain": PixelConfig()})
    study.validate()
    assert "actor_recon_plain" in {a.name for a in study.arms}
    claims = [(c.arm, c.against) for c in study.claims if c.number == 7]
    assert claims == [("actor_recon", "actor_recon_plain")]
    assert [c.number for c in study.claims] == sorted(c.number for c in study.claims)


def test_devices_are_dealt_from_what_is_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_devices() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


def test_every_column_is_explained():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text[text.index("## The study") :]))
    assert set(RESULT_COLUMNS) | set(COMPARISON_COLUMNS) <= named
    assert {"control_steps", "stages_done"} <= named


def test_a_studys_recipe_claims_what_its_tasks_can_show():
    study = recipes.robosuite()
    assert [arm.name for arm in study.arms] == ["actor_success", "wamrl"]
    assert [(c.number, c.arm, c.against) for c in study.claims] == [
        (1, "actor_success", "base"),
        (3, "wamrl", "base"),
    ]
    every = recipes.metaworld()
    assert len(every.arms) == 11 and {c.number for c in every.claims} == set(range(1, 11))
