"""Every verb from the command line, what it leaves behind,
resuming, and one clear sentence for bad input.
"""

import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support import tiny
from tests.support.command_line import POINT, refused, run_of, wamrl
from wamrl import __version__ as wamrl_version
from wamrl.cli import VERBS, main
from wamrl.commands.options import CONFIG
from wamrl.config import Config
from wamrl.models.saved import load_state
from wamrl.recipes.point import point
from wamrl.runs.folder import Options, next_command
from wamrl.runtime import checkpoint, ranges
from wamrl.runtime.log import read_metrics
from wamrl.stats.paired import wilson
from wamrl.types import SAMPLERS

ARM = {
    "task",
    "stages",
    "seed",
    "episodes",
    "successes",
    "rate",
    "wilson95",
    "mean_length",
    "error_over_copy",
}
ARM |= {"error_over_copy_executed", "mean_stages", "starts", "success", "sampler", "rates"}
PAIR = {
    "episodes",
    "before",
    "after",
    "difference",
    "low",
    "high",
    "method",
    "gained",
    "lost",
    "p_value",
}


def digest(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return run_of(tmp_path_factory.mktemp("demos"), "demos", *POINT)


@pytest.fixture(scope="module")
def base(tmp_path_factory, data) -> Path:
    return run_of(tmp_path_factory.mktemp("sft"), "sft", *POINT, "--data", data)


@pytest.fixture(scope="module")
def improved(tmp_path_factory, base, data) -> Path:
    return run_of(tmp_path_factory.mktemp("train"), "train", *POINT, "--base", base, "--data", data)


def check_arm(arm: dict, offsets: tuple[str, ...] = ("4", "8")) -> None:
    assert ARM <= arm.keys()
    n, wins = arm["episodes"], arm["successes"]
    assert (
        n == len(arm["starts"]) == len(arm["success"])
        and wins == sum(arm["success"])
        and arm["rate"] == wins / n
    )
    assert arm["wilson95"] == pytest.approx(wilson(wins, n)) and arm["starts"] == list(range(n))
    assert 0 < arm["mean_length"] <= 40 and arm["stages"] == 1 and arm["seed"] == 0 and arm["task"]
    for name in ("error_over_copy", "error_over_copy_executed"):
        assert tuple(arm[name]) == offsets and all(
            v is not None and v > 0 for v in arm[name].values()
        )


def test_quickstart_leaves_everything_behind(point_run):
    names = {p.name for p in point_run.iterdir()}
    assert {
        "config.json",
        "metrics.jsonl",
        "tensorboard",
        "summary.json",
        "learning_curve.png",
        "videos",
    } <= names
    assert {"demos", "heldout", "checkpoints", "diagnostics.png"} <= names
    assert {"base", "before", "best", "final"} <= {
        p.name for p in (point_run / "checkpoints").iterdir()
    }
    assert any((point_run / "tensorboard").iterdir())
    for picture in ("learning_curve.png", "diagnostics.png"):
        assert (point_run / picture).read_bytes().startswith(b"\x89PNG")
    for part in ("before", "after"):
        videos = sorted((point_run / "videos" / part).glob("*.mp4"))
        assert videos and all(b"ftyp" in v.read_bytes()[:16] for v in videos)
    config = json.loads((point_run / "config.json").read_text())
    assert (
        config["class"] == "wamrl.config:Config"
        and config["seed"] == 0
        and config["name"] == "point-smoke"
    )


def test_the_summary_is_complete_and_consistent(point_run):
    summary = json.loads((point_run / "summary.json").read_text())
    before, after = summary["arms"]["before"], summary["arms"]["after"]
    check_arm(before)
    check_arm(after)
    pair = summary["paired"]["after - before"]
    assert PAIR <= pair.keys() and pair["episodes"] == before["episodes"] == after["episodes"]
    assert (pair["before"], pair["after"]) == (before["rate"], after["rate"])
    assert pair["difference"] == pytest.approx(after["rate"] - before["rate"])
    changes = [a - b for b, a in zip(before["success"], after["success"], strict=True)]
    assert (pair["gained"], pair["lost"]) == (changes.count(1), changes.count(-1))
    assert pair["low"] <= pair["difference"] <= pair["high"] and summary["seconds"] > 0


def test_the_metrics_tell_of_every_phase(point_run):
    rows = read_metrics(point_run)
    steps = [r["step"] for r in rows]
    assert steps == sorted(steps) and steps[0] < 0 and steps[-1] == 2
    keys = set().union(*rows)
    assert {
        "sft/video_loss",
        "sft/action_loss",
        "heldout/copy_ratio/8",
        "rollout/success",
        "time/rollout",
    } <= keys
    assert all(v is None or math.isfinite(v) for r in rows for v in r.values())
    assert sum("rollout/success" in r for r in rows) == 2
    assert [r["step"] for r in rows if "eval/success" in r] == [0, 1, 2]
    held = next(r for r in rows if "heldout/copy_ratio/8" in r)["heldout/copy_ratio/8"]
    summary = json.loads((point_run / "summary.json").read_text())
    # nothing happened in between
    assert summary["arms"]["before"]["error_over_copy"]["8"] == pytest.approx(held)
    ends = [r for r in rows if r.get("eval/success") is not None and r["step"] in (0, 2)]
    for row, arm in zip(ends, summary["arms"].values(), strict=True):
        assert row["eval/success"] == arm["rate"] == arm["rates"][arm["sampler"]]
        assert SAMPLERS[int(row["eval/sampler"])] == arm["sampler"]
        assert [row["eval/success_low"], row["eval/success_high"]] == arm["wilson95"]


def test_eval_deploys_the_saved_sampler(improved, tmp_path):
    """Whichever it is, also of the checkpoint `best`."""
    places = {"best": load_state(improved / "checkpoints" / "best")["sampler"]}
    state = load_state(improved / "checkpoints" / "final")
    for sampler in SAMPLERS:
        checkpoint.save_named(tmp_path / "made", sampler, state | {"sampler": sampler})
        places[sampler] = sampler
    for name, sampler in places.items():
        root = improved if name == "best" else tmp_path / "made"
        base = root / "checkpoints" / name
        (tmp_path / f"out-{name}").mkdir()
        run = run_of(tmp_path / f"out-{name}", "eval", *POINT, "--base", base)
        arm = json.loads((run / "summary.json").read_text())["arms"]["model"]
        assert arm["sampler"] == sampler and arm["rate"] == arm["rates"][sampler]
        assert arm["rates"].keys() == set(SAMPLERS)


def test_demos_sft_train_and_eval_one_after_the_other(data, base, improved, tmp_path):
    known = {"run.json", "config.json", "demos", "heldout"}
    assert {p.name for p in data.iterdir()} - {".lock"} == known
    # taken from `data`
    assert (base / "checkpoints" / "base").is_dir() and not (base / "demos").exists()
    assert (
        tiny.difference(*(load_state(r / "checkpoints" / "base")["wam"] for r in (base, improved)))
        is None
    )
    assert tiny.difference(
        *(load_state(improved / "checkpoints" / n)["wam"] for n in ("base", "final"))
    )
    assert (improved / "summary.json").is_file() and (improved / "learning_curve.png").is_file()
    run = run_of(tmp_path, "eval", *POINT, "--base", improved, "--data", data)
    summary = json.loads((run / "summary.json").read_text())
    check_arm(summary["arms"]["model"])
    after = json.loads((improved / "summary.json").read_text())["arms"]["after"]
    # `eval` takes the final model, and finds what `train` found
    assert summary["arms"]["model"] == after
    assert list((run / "videos").glob("*.mp4")) and (run / "config.json").is_file()


def test_sft_finds_what_quickstart_found(point_run, base):
    """The same configuration and seed: demonstrations and base model are bitwise the same."""
    assert (
        tiny.difference(*(load_state(r / "checkpoints" / "base")["wam"] for r in (point_run, base)))
        is None
    )


def test_eval_without_demonstrations_has_no_held_out_ratio(base, tmp_path):
    shutil.copytree(base / "checkpoints" / "base", tmp_path / "model")
    run = run_of(tmp_path / "runs", "eval", *POINT, "--base", tmp_path / "model")
    arm = json.loads((run / "summary.json").read_text())["arms"]["model"]
    assert (
        set(arm["error_over_copy"].values()) == {None} and arm["error_over_copy_executed"]["8"] > 0
    )


def test_check_and_list():
    code, out, err = wamrl("check", *POINT)
    assert (code, err) == (0, "") and [
        line.split()[-1] for line in out.splitlines() if ": ok" in line
    ] == ["ok"] * 3
    code, out, err = wamrl("list")
    assert (
        (code, err) == (0, "")
        and "quickstart" in out
        and "button-press" in out
        and "pick-place" in out
    )


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "mujoco", "metaworld", "robosuite", "transformers"):
            raise ImportError(f"slow to import: {name}")
sys.meta_path.insert(0, Blocker())
from wamrl.cli import VERBS, main
"""
BLOCKED = f"""{BLOCKER}
helps = [*([v, "--help"] for v in VERBS), *(["data", v, "--help"] for v in ("convert", "stats"))]
for words in (["--help"], ["--version"], ["list"], *helps):
    print("#", *words)
    try:
        main(words)
    except SystemExit as stop:
        assert not stop.code, words
"""


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What these words print where neither torch nor a simulator can be imported."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(part.split("\n", 1) for part in done.stdout.split("# ")[1:])


def test_help_and_list_import_neither_torch_nor_a_simulator(printed):
    assert "--base PATH" in printed["train --help"] and "--base PATH" not in printed["sft --help"]
    assert "--report-only" in printed["study --help"] and "--train.*" in printed["eval --help"]
    assert printed["--version"].strip() == f"wamrl {wamrl_version}"


def test_every_option_says_what_it_is_and_no_default_that_means_nothing(printed):
    for words, text in printed.items():
        if not words.endswith("--help"):
            continue
        plain = " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())
        assert not re.search(r"\{None\}|\(default: (None|''|)\)", plain), words
        options = re.split(r" (?=--[a-z])", plain)
        bare = [option for option in options if re.fullmatch(r"--\S+ \S+ \(default: .*\)", option)]
        assert not bare, (words, bare)


def test_what_only_reads_and_converts_imports_no_torch(point_run, tmp_path):
    other = shutil.copytree(point_run, tmp_path / "other")
    commands = (
        ("data", "inspect", point_run),
        ("data", "convert", point_run, tmp_path / "set", "--fps", "10", "--image"),
        ("data", "stats", tmp_path / "set"),
        ("report", point_run, "--html", tmp_path / "run.html"),
        ("compare", point_run, other),
    )
    calls = "".join(f"main({[str(word) for word in words]})\n" for words in commands)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + calls], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run.html").is_file()


def test_the_short_help_names_every_part_of_a_config():
    assert [name.removesuffix(".*") for name in CONFIG] == [f.name for f in fields(Config)]
    parts = {name for name in CONFIG if name.endswith(".*")}
    assert parts == {
        f"{f.name}.*" for f in fields(point()) if is_dataclass(getattr(point(), f.name))
    }


@pytest.mark.parametrize("module", ["wamrl", "wamrl.cli"])
def test_nobody_who_reads_is_no_error(module):
    """As with `wamrl list | head -1`."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", module, "list"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_recipe_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "path", [place for place in sys.path if place not in ("", os.getcwd())]
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_lab_of_tests").mkdir()
    source = "from wamrl.recipes.point import point as mine\nwrong = dict\n"
    (tmp_path / "my_lab_of_tests" / "push.py").write_text(source)
    code, out, _ = wamrl("sft", "my_lab_of_tests.push:mine", "--help")
    assert code == 0 and "--sft.steps" in out
    assert "returns a dict" in refused("sft", "my_lab_of_tests.push:wrong", code=2)


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_usage(args):
    code, out, _ = wamrl(*args)
    assert code == (0 if args else 2) and all(verb in out for verb in VERBS)


def test_help_of_a_verb_shows_the_options():
    code, out, _ = wamrl("train", "point", "--help")
    assert code == 0 and "--train.learner.lr" in out and "--base" in out and "--smoke" in out


def same_apart_from_time(a: Path, b: Path) -> None:
    rows = [
        [
            {k: v for k, v in r.items() if k != "seconds" and not k.startswith("time/")}
            for r in read_metrics(x)
        ]
        for x in (a, b)
    ]
    assert rows[0] == rows[1]
    summaries = [json.loads((x / "summary.json").read_text()) for x in (a, b)]
    assert all(s.pop("seconds") > 0 for s in summaries) and summaries[0] == summaries[1]
    for name in ("base", "best", "final", "step-00000002"):
        assert tiny.difference(*(load_state(x / "checkpoints" / name) for x in (a, b))) is None, (
            name
        )


@pytest.mark.parametrize(
    ("when", "words", "gone"),
    [
        (
            "between the sets of demonstrations",
            (),
            ("heldout", "checkpoints", "videos", "metrics.jsonl"),
        ),
        (
            "while fine-tuning",
            (),
            ("checkpoints/base", "checkpoints/before", "checkpoints/step-*", "videos"),
        ),
        ("in the online loop", (), ("checkpoints/step-00000002", "videos/after")),
        ("before there was run.json", POINT, ("checkpoints/step-00000002", "run.json")),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_end(point_run, tmp_path, when, words, gone):
    run = tmp_path / "run"
    shutil.copytree(point_run, run)
    for pattern in (*gone, "checkpoints/final", "summary.json", "*.png"):
        for path in run.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, out, err = wamrl("quickstart", *words, "--resume", run)
    assert code == 0, out + err
    same_apart_from_time(point_run, run)
    assert sorted(p.name for p in (run / "videos").rglob("*.mp4")) == sorted(
        p.name for p in (point_run / "videos").rglob("*.mp4")
    )


# --- bad input


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("fly", "point"), 2, ("unknown verb 'fly'", "quickstart")),
        (("train", "pont"), 2, ("unknown recipe 'pont'", "point")),
        (("demos", "nowhere_at_all:recipe"), 2, ("cannot import recipe",)),
        (
            ("quickstart", "quickstart", "--env.task", "fold-laundry"),
            1,
            ("fold-laundry", "button-press"),
        ),
        (
            ("quickstart", "quickstart", "--env.task", "door-open", "--env.stages", "3"),
            1,
            ("one stage only",),
        ),
        (("quickstart", *POINT, "--flow.noise", "0"), 1, ("noise=0", "flow.noise > 0")),
        (("quickstart", *POINT, "--env.stages", "9"), 2, ("env.stages=9", "<= 4")),
        (("quickstart", *POINT, "--model.world.heads", "7"), 1, ("heads=7 must divide width",)),
        (
            ("sft", *POINT, "--train.reward.shaping", "0.9"),
            2,
            ("shaping=0.9", "< 0.5"),
        ),
        (("train", *POINT), 2, ("--base", "wamrl sft")),
        (("eval", *POINT), 2, ("--base",)),
        (("train", *POINT, "--base", "/nowhere"), 1, ("/nowhere",)),
        (("eval", *POINT, "--base", "/nowhere"), 1, ("/nowhere",)),
        (("sft", *POINT, "--data", "/nowhere"), 1, ("/nowhere", "wamrl demos")),
        (("quickstart", *POINT, "--resume", "/nowhere"), 2, ("/nowhere is not a run folder",)),
        (("train", "--resume", "/nowhere"), 2, ("/nowhere is not a run folder",)),
        (
            ("sft", *POINT, "--model.frame-offsets", "99"),
            1,
            ("all of (99,) lie beyond",),
        ),
        (
            ("sft", *POINT, "--model.history-offsets", "-99", "0"),
            1,
            ("all of (-99,) lie",),
        ),
        (("study", "metaworld", "--only", "no/such/cell"), 1, ("no cell of metaworld matches",)),
        (("study", "metaworld", "--report-only"), 1, ("there is no study at",)),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_bad_input_gets_one_sentence(args, code, words, tmp_path):
    out = tmp_path / "runs"
    sentence = refused(*args, *(() if args[0] == "fly" else ("--out", out)), code=code)
    assert all(word in sentence for word in words), sentence
    assert not out.exists()  # nothing was begun


NONSENSE = {
    "sft.grad-norm": "-1",
    "sft.ema": "5",
    "sft.lr": "inf",
    "sft.log-every": "0",
    "sft.weight-decay": "-0.1",
    "flow.noise": "nan",
    "seed": "-1",
    "train.groups": "1000000000",
    "train.ema": "1",
    "train.cache-mb": "nan",
    "train.learner.grad-norm": "0",
    "train.learner.dual-clip": "0.5",
    "train.world.demo-share": "1.5",
    "train.world.kl-share": "1",
    "model.world.width": "-96",
    "model.world.patch": "0",
    "model.frame-offsets": "0",
    "eval.episodes": "0",
    "pool.n-envs": "0",
    "pool.timeout-s": "-60",
    "threads": "-2",
    "env.image-size": "4",
    "env.horizon": "0",
    "data.episodes": "-3",
    "data.noise": "inf",
}


@pytest.mark.parametrize("option", NONSENSE)
def test_a_number_outside_its_range_is_refused_by_its_option_before_anything_is_made(
    option, tmp_path
):
    words = ("quickstart", *POINT, f"--{option}", NONSENSE[option])
    sentence = refused(*words, "--out", tmp_path, code=2)
    assert sentence.startswith(f"{option.replace('-', '_')}=") and "is not possible" in sentence
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sft", "point", "--ranks", "100000"), "ranks=100000 is not possible"),
        (("eval", "point", "--base", "RUN", "--ranks", "-1"), "ranks=-1 is not possible"),
        (("report", "RUN", "--video-mb", "nan"), "video_mb=nan is not possible"),
        (("serve", "RUN", "--port", "99999"), "port=99999 is not possible"),
        (("serve", "RUN", "--log-every-s", "0"), "log_every_s=0.0 is not possible"),
        (("embed", "point", "--encoder", "E", "--tokens", "-1"), "tokens=-1 is not possible"),
        (("data", "convert", "A", "B", "--fps", "0"), "fps=0 is not possible"),
        (("data", "convert", "A", "B", "--crf", "500"), "crf=500 is not possible"),
        (("data", "convert", "A", "B", "--image-hw", "-3", "5"), "image_hw=-3 is not possible"),
        (("data", "nonsense"), "which one? wamrl data convert | inspect | stats"),
    ],
)
def test_so_is_one_of_a_verb(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in refused(*words, code=2)
    assert not any(tmp_path.iterdir())


def test_a_model_imagines_something_and_a_set_is_not_converted_into_itself(point_run, tmp_path):
    words = ("sft", *POINT, "--model.frame-offsets", "--out", tmp_path / "runs")
    assert "model.frame_offsets is empty" in refused(*words)
    set_ = tmp_path / "set"
    assert wamrl("data", "convert", point_run, set_, "--fps", "10", "--image")[0] == 0
    assert f"lies in {set_}" in refused("data", "convert", set_, set_ / "inside")
    assert not (tmp_path / "runs").exists() and not (set_ / "inside").exists()


@pytest.mark.parametrize("name", ["../away", "a/b", "", ".", "..", "/tmp/x", "two words"])
def test_the_name_of_a_run_is_one_path_component(name, tmp_path):
    out = tmp_path / "runs"
    sentence = refused("demos", *POINT, "--name", name, "--out", out)
    assert sentence.startswith(f"name='{name}") and "is not possible" in sentence
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option", [("--nonsense", "1"), ("--sft.steps", "many"), ("--train.reward.mode", "luck")]
)
def test_unknown_options_and_values(option, tmp_path):
    code, _, err = wamrl("quickstart", *POINT, *option, "--out", tmp_path)
    assert code == 2 and option[0] in err and not any(tmp_path.iterdir())


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_corrupt_checkpoint(improved, tmp_path):
    broken = tmp_path / "run"
    shutil.copytree(improved, broken)
    flip_a_byte(next((broken / "checkpoints" / "final").glob("*.safetensors")))
    before = digest(broken)
    for verb in ("eval", "train"):
        sentence = refused(verb, *POINT, "--base", broken, "--out", tmp_path / "out")
        assert "corrupt" in sentence and str(broken) in sentence, sentence
    after = digest(broken)
    assert {k: v for k, v in after.items() if k in before} == before  # nothing saved is lost


def test_a_damaged_newest_step_gives_way_to_the_one_before(improved, data, tmp_path):
    broken = tmp_path / "run"
    shutil.copytree(improved, broken)
    shutil.rmtree(broken / "checkpoints" / "final")
    flip_a_byte(broken / "checkpoints" / "step-00000002" / "tensors.safetensors")
    code, out, err = wamrl("train", *POINT, "--resume", broken, "--data", data)
    assert code == 0, out + err
    (line,) = [line for line in out.splitlines() if "corrupt" in line]
    assert "step-00000002/tensors.safetensors" in line and "going on from step-00000001" in line
    same_apart_from_time(improved, broken)
    assert len(list((broken / "checkpoints").glob("damaged-step-00000002-*"))) == 1
    for step in (broken / "checkpoints").glob("step-*"):
        flip_a_byte(step / "tensors.safetensors")
    assert "corrupt" in refused("train", *POINT, "--resume", broken, "--data", data)


def test_a_truncated_demonstration_file(data, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    path = broken / "demos" / "episodes.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    sentence = refused("sft", *POINT, "--data", broken, "--out", tmp_path / "out")
    assert str(broken / "demos") in sentence and "record the demonstrations again" in sentence


def test_models_and_demonstrations_that_do_not_fit(base, data, tmp_path):
    out = ("--out", tmp_path)
    sentence = refused("eval", *POINT, "--base", base, "--model.world.width", "32", *out)
    assert "another model" in sentence and "width is 64 there and 32 here" in sentence
    sentence = refused("train", *POINT, "--base", base, "--data", data, "--model.chunk", "4", *out)
    assert "another model" in sentence and "chunk" in sentence
    sentence = refused("sft", *POINT, "--data", data, "--env.image-size", "16", *out)
    assert "another environment" in sentence and "image_hw" in sentence
    sentence = refused("eval", *POINT, "--base", data / "demos", *out)
    assert str(data / "demos") in sentence


def test_resuming_with_another_configuration(improved):
    before = digest(improved)
    sentence = refused("train", *POINT, "--resume", improved, "--seed", "1")
    assert "another configuration" in sentence and "seed is 0 there and 1 here" in sentence
    assert "train.learner.lr" in refused(
        "train", *POINT, "--resume", improved, "--train.learner.lr", "0.5"
    )
    assert digest(improved) == before


def test_a_run_goes_on_with_what_it_was_begun_with_and_nothing_else(improved, base, data, tmp_path):
    before = digest(improved)
    for words, told in {
        ("train", "--seed", "1"): "config.seed is 0 there and 1 here",
        ("train", "lift"): "recipe is point there and lift here",
        ("sft",): f"wamrl train --resume {improved}",
        ("train", "--data", improved): "holds no demonstrations",
        ("train", "--base", improved): "other base: base is",
        ("train", "--train.learner.lr", "0.5"): "--force changes learning rates",
    }.items():
        code = 2 if "recipe" in told or words == ("sft",) else 1
        assert told in refused(*words, "--resume", improved, code=code)
    other = tmp_path / "other"
    shutil.copytree(data, other)
    (other / "heldout" / "more").write_text("")
    assert "other data: data is" in refused("train", "--resume", improved, "--data", other)
    assert digest(improved) == before


def test_a_resumed_run_may_have_another_machine_and_on_request_other_rates(improved, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(improved, run)
    for name in ("final", "step-00000002"):
        shutil.rmtree(run / "checkpoints" / name)
    machine = ("--pool.n-envs", "2", "--eval.episodes", "3")
    code, out, err = wamrl(
        "train", "--resume", run, *machine, "--force", "--train.learner.lr", "1e-6"
    )
    assert code == 0, out + err
    record = json.loads((run / "run.json").read_text())
    (again,) = record["resumed"]
    rate = point().train.learner.lr
    assert again["changed"] == {
        "pool.n_envs": [4, 2],
        "eval.episodes": [4, 3],
        "train.learner.lr": [rate, 1e-6],
    }
    assert f"train.learner.lr is 1e-06 from here on, it was {rate}" in out
    config = json.loads((run / "config.json").read_text())
    assert config == record["config"] and config["train"]["learner"]["lr"] == 1e-6
    told = [(r["step"], r["config/train.learner.lr"]) for r in read_metrics(run) if len(r) == 3]
    assert told == [(1, 1e-6)]
    assert len(json.loads((run / "summary.json").read_text())["arms"]["after"]["success"]) == 3


def test_a_base_knows_its_recipe_and_its_demonstrations(base, data, tmp_path):
    """Nothing is recorded again where the base had other demonstrations."""
    run = run_of(tmp_path / "runs", "train", "--base", base, "--train.iterations", "1")
    record = json.loads((run / "run.json").read_text())
    assert record["recipe"] == "point" and not (run / "demos").exists()
    assert record["data"] == json.loads((base / "run.json").read_text())["data"]
    assert record["data"]["path"] == str(data)
    assert record["base"]["path"] == str(base / "checkpoints" / "base")
    # one that nobody knows anything of, or whose demonstrations have changed
    shutil.copytree(base / "checkpoints" / "base", tmp_path / "model")
    out = ("--out", tmp_path / "none")
    sentence = refused("train", *POINT, "--base", tmp_path / "model", *out)
    assert "does not say which demonstrations" in sentence and "--data" in sentence
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    record = json.loads((moved / "run.json").read_text())
    record["data"]["digest"] = "0" * 64
    (moved / "run.json").write_text(json.dumps(record))
    assert "is not what it was then" in refused("train", "--base", moved, *out)
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_built_is_refused_before_anything_is_made(tmp_path):
    out = tmp_path / "runs"
    for words in (
        ("sft", "point", "--env.image-size", "84"),
        ("quickstart", "point", "--env.image-size", "84"),
        ("quickstart", "point", "--train.env-steps", "30"),
    ):
        refused(*words, "--ranks", "1", "--out", out)
        assert not out.exists()


def test_a_run_in_which_nothing_has_happened_is_taken_back(tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("there is no expert")

    monkeypatch.setattr("wamrl.commands.runs.record", fails)
    assert refused("demos", *POINT, "--out", tmp_path) == "there is no expert"
    assert not any(tmp_path.iterdir())


def test_who_stops_a_run_is_told_how_to_go_on(tmp_path, monkeypatch):
    def stopped(_, run):
        (run / "demos").mkdir()
        (run / "demos" / "index.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("wamrl.commands.runs.record", stopped)
    code, _, err = wamrl("demos", *POINT, "--out", tmp_path)
    (run,) = tmp_path.iterdir()
    assert (code, err) == (130, f"wamrl: stopped; go on with: wamrl demos --resume {run}\n")


@pytest.fixture
def any_number(monkeypatch):
    """Numbers outside their range pass: a rate of 1e30 makes a run diverge at once."""
    monkeypatch.setattr(ranges, "_check", lambda *_: None)


@pytest.mark.parametrize("option", [("--sft.lr", "1e30")])
def test_a_diverging_run_stops_in_words_and_keeps_what_it_has(option, any_number, data, tmp_path):
    before = digest(data)
    sentence = refused("sft", *POINT, "--data", data, *option, "--out", tmp_path)
    assert "the loss is" in sentence and "lower sft.lr" in sentence
    assert digest(data) == before
    (run,) = tmp_path.iterdir()
    assert not (run / "checkpoints" / "base").exists() and (run / "config.json").is_file()


def test_a_diverging_online_run_keeps_its_checkpoints(any_number, base, data, tmp_path):
    options = (
        "--train.learner.lr",
        "1e30",
        "--train.learner.value-warmup",
        "1",
        "--train.learner.target-kl",
        "1e9",
    )
    sentence = refused("train", *POINT, "--base", base, "--data", data, *options, "--out", tmp_path)
    assert "diverged" in sentence or "not finite" in sentence, sentence
    (run,) = tmp_path.iterdir()
    assert checkpoint.load(run / "checkpoints" / "before")
    for name in ("base", "step-00000001"):
        weights = load_state(run / "checkpoints" / name)["wam"]
        assert all(weight.isfinite().all() for weight in weights.values())


def test_the_traceback_is_shown_on_request(monkeypatch, tmp_path):
    monkeypatch.setenv("WAMRL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown recipe"):
        main(["train", "pont"])


def test_threads_are_what_was_asked(point_run):
    assert torch.get_num_threads() == 1


def test_what_a_verb_prints_as_the_next_command_works_as_printed(tmp_path):
    """From demonstrations to a run; with the same options, and what was recorded is not recorded
    again.
    """
    command = ["wamrl", "demos", *POINT, "--seed", "3", "--out", str(tmp_path / "a b")]
    for verb in ("sft", "train"):
        code, out, err = wamrl(*command[1:])
        assert code == 0, out + err
        (line,) = [line for line in out.splitlines() if " with: wamrl " in line]
        command = shlex.split(line.partition(" with: ")[2])
        assert command[:2] == ["wamrl", verb] and command[3] == "--smoke"
    assert wamrl(*command[1:])[0] == 0
    runs = sorted((tmp_path / "a b").iterdir())
    assert [(run / "demos").is_dir() for run in runs] == [True, False, False]
    assert {json.loads((run / "config.json").read_text())["seed"] for run in runs} == {3}
    assert (runs[2] / "summary.json").is_file()


def test_the_next_command_names_its_own_run(tmp_path):
    """Bases and interrupted runs of the command before are not those of the next one."""
    words = ("point", "--base", "old", "--seed", "3", "--resume=older", "--data=d")
    options = Options(config=point(), words=words)
    wanted = "wamrl train point --seed 3 --data=d --base new"
    assert next_command("train", options, "--base", Path("new")) == wanted
    assert next_command("sft", options, "--data", Path("new")).endswith("--seed 3 --data new")


def test_the_next_command_of_a_resumed_run_has_the_options_with_which_it_was_begun():
    record = SimpleNamespace(command=["wamrl", "sft", "point", "--seed", "3", "--data", "d"])
    for words in (
        ("--resume", "r", "--threads", "2"),
        ("point", "--resume", "r", "--force", "--threads", "2"),
    ):
        options = Options(config=point(), words=words, recipe="point", record=record)
        found = next_command("train", options, "--base", Path("r"))
        assert found == "wamrl train point --seed 3 --data d --threads 2 --base r"
    options = Options(config=point(), words=("--seed", "3"), recipe="quickstart")
    wanted = "wamrl train quickstart --seed 3 --base r"
    assert next_command("train", options, "--base", Path("r")) == wanted
