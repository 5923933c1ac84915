"""`wamrl push`, `wamrl pull` and `hf://`: the real client of the Hugging Face Hub against a hub of
our own on 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

import wamrl
from tests.support import local_hub, tiny
from tests.support.command_line import refused
from tests.support.command_line import wamrl as command
from tests.support.run_folders import AFTER, BEFORE, arm
from tests.support.saved_runs import saved_run
from wamrl import report
from wamrl.cli import chosen
from wamrl.data import lerobot
from wamrl.hub.repo import Repo, local, parse_repo
from wamrl.models.saved import save_wam
from wamrl.recipes.point import point
from wamrl.runs.demonstrations import env_spec
from wamrl.runs.record import new_record, write_record
from wamrl.runtime.files import sha256
from wamrl.serve.saved import open_saved
from wamrl.stats.paired import paired_difference

pytest.importorskip("huggingface_hub", reason="needs wamrl[hub]")

ID = "lab/point"
MODEL = ("config.json", "manifest.json", "model.safetensors")
PNG = b"\x89PNG of a curve"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder that knows what `wamrl quickstart` would: before, after, curve, record."""
    run = saved_run(tmp_path_factory.mktemp("runs"), flow__noise_end=0.25)
    saved = open_saved(run)
    config = saved.config
    for name in ("base", "best"):
        more = {"iteration": 2, "choose_success": 0.75} if name == "best" else {}
        save_wam(config.model, saved.spec, saved.wam, run, name, config=config, **more)
    arms = {"before": arm(BEFORE, "zero"), "after": arm(AFTER)}
    pairs = {"after - before": paired_difference(BEFORE, AFTER)}
    report.write_summary(run / "summary.json", arms, pairs, seconds=1.0)
    point = {"eval/success": AFTER.mean(), "eval/episodes": 10.0}
    rows = [{"step": 2, "eval/success": 0.1}, {"step": 4, "time/eval": 1.0}, {"step": 4} | point]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "learning_curve.png").write_bytes(PNG)
    write_record(run, new_record(["wamrl", "quickstart", "point"], "point", config, None, None))
    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with local_hub.serving() as hub:
        local_hub.use(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield hub


def done(*args) -> str:
    """What a command says that must succeed."""
    code, out, err = command(*args)
    assert code == 0, out + err
    return out


def stored(hub, run: Path, name: str = "final") -> dict[str, bytes]:
    """The model's files put on the hub without `push`."""
    folder = run / "checkpoints" / name
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add(f"models/{ID}", files)
    return files


# --- there and back


def test_what_is_pulled_is_bitwise_what_was_pushed(hub, run, tmp_path):
    said = done("push", run, ID)
    assert f"{hub.url}/{ID}" in said and "fetch it with: wamrl pull lab/point" in said
    assert not hub.repos[f"models/{ID}"].private
    uploads = [line for line in hub.asked if "/commit/" in line]
    assert len(uploads) == 1, "all files in one commit"
    said = done(*said.splitlines()[-1].partition("wamrl ")[2].split())
    away = tmp_path / "point"
    for name in MODEL:
        assert (away / name).read_bytes() == (run / "checkpoints" / "final" / name).read_bytes()
    assert (away / "learning_curve.png").read_bytes() == PNG
    assert {path.name for path in away.iterdir()} == {*MODEL, "README.md", "learning_curve.png"}
    there = open_saved(away)
    assert there.sampler == "ode" and there.flow.noise == 0.25
    assert not tiny.changed(there.wam, tiny.snapshot(open_saved(run).wam))
    assert said.splitlines()[-1] == "evaluate it with: wamrl eval --base point"


def test_what_an_earlier_push_has_left_is_deleted(hub, run):
    done("push", run, ID)
    done("push", run / "checkpoints" / "base", ID)  # of which no curve tells
    there = hub.repos[f"models/{ID}"]
    left = set(there.commits[there.branches["main"]]) - {".gitattributes"}  # the hub's own
    assert left == {*MODEL, "README.md"}


def test_the_next_command_works_as_printed(hub, run, tmp_path):
    stored(hub, run)
    said = done("pull", ID, "--out", tmp_path / "away")
    words = said.splitlines()[-1].partition("wamrl ")[2].split()
    done(*words, "--eval.episodes", "1", "--out", tmp_path / "runs")
    (found,) = (tmp_path / "runs").iterdir()
    summary = report.read_summary(found / "summary.json")["arms"]["model"]
    assert summary["task"] == "point" and summary["sampler"] == "ode"


def test_the_environment_says_where_the_hub_is(hub, tmp_path):
    """In a process of its own, as people have it."""
    told = os.environ | local_hub.environment(hub, tmp_path / "cache")
    told["PYTHONPATH"] = str(Path(__file__).parents[2])
    options = {"capture_output": True, "text": True, "env": told}
    done = subprocess.run([sys.executable, "-m", "wamrl", "pull", ID], **options)
    assert done.returncode == 1 and "there is no hf://lab/point (model)" in done.stderr
    assert f"GET /api/models/{ID}" in hub.asked


def test_branches_and_privacy(hub, run, tmp_path):
    said = done("push", run / "checkpoints" / "base", ID, "--private", "--revision", "v1")
    repo = hub.repos[f"models/{ID}"]
    assert repo.private and "wamrl pull lab/point --revision v1" in said
    assert "model.safetensors" not in repo.commits[repo.branches["main"]]
    assert "is not a model of wamrl: it has no manifest.json" in refused("pull", ID)
    done("pull", f"hf://{ID}@v1", "--out", tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").is_file()
    assert "has no such revision" in refused("pull", ID, "--revision", "v2")
    repo.private = False
    assert "everybody can read it" in refused("push", run, ID, "--private")
    assert "model.safetensors" not in repo.commits[repo.branches["main"]]


# --- the card


def card(hub, run: Path, *options) -> str:
    done("push", run, ID, *options)
    repo = hub.repos[f"models/{ID}"]
    return repo.commits[repo.branches["main"]]["README.md"].decode()


def test_the_card_says_what_was_measured(hub, run):
    text = card(hub, run, "--license", "mit")
    header = text.split("---")[1].splitlines()
    assert {"library_name: wamrl", "license: mit", "- robotics"} <= set(header)
    assert "| before online training | 3/10 = 30.0% | 10.8% to 60.3% | 10 | zero |" in text
    assert "| this model | 8/10 = 80.0% | 49.0% to 94.3% | 10 | ode |" in text
    assert "on the same 10 initial states, in points with the 95 % interval: +50.0 [" in text
    assert "| cameras | top: 32 x 32 pixels" in text and "| recipe | point |" in text
    assert f"| wamrl | {wamrl.__version__} |" in text and "| commit | " in text
    assert 'run = wamrl.load("hf://lab/point")' in text and "sampler=" not in text
    assert "![learning curve](learning_curve.png)" in text
    assert str(run.parent) not in text, "no path of this machine"


def test_the_card_claims_nothing_of_another_model(hub, run, tmp_path):
    """base: its own evaluation; best: none; a final that is newer than the summary: none."""
    text = card(hub, run / "checkpoints" / "base")
    assert "| this model | 3/10 = 30.0%" in text and "8/10" not in text
    assert 'wamrl.load("hf://lab/point", sampler="zero")' in text, "as it was measured"
    assert "learning curve" not in text and "license" not in text
    text = card(hub, run / "checkpoints" / "best")
    assert "/10" not in text and "Kept after iteration 2" in text and "75.0%" in text
    prolonged = tmp_path / "prolonged"
    shutil.copytree(run, prolonged)
    with open(prolonged / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 5, "time/eval": 1.0}) + "\n")
    assert "/10" not in card(hub, prolonged)
    away = tmp_path / "away"
    shutil.copytree(run / "checkpoints" / "final", away)
    text = card(hub, away)
    assert "/10" not in text and "Made with" not in text and "wamrl.load" in text


def test_text_of_the_environment_is_no_markup(hub, tmp_path):
    saved = open_saved(saved_run(tmp_path / "runs"))
    spec = replace(saved.spec, instruction="<script>x</script> | a\n# b `c`")
    run = tmp_path / "odd"
    save_wam(saved.config.model, spec, saved.wam, run, "final", config=saved.config)
    text = card(hub, run)
    assert "<script" not in text and "\n# b" not in text


# --- places on the hub wherever a folder is named


def test_a_model_of_the_hub_is_loaded_and_begun_with(hub, run, tmp_path):
    stored(hub, run)
    loaded = wamrl.load(f"hf://{ID}")
    saved = open_saved(run)
    assert not tiny.changed(loaded.model, tiny.snapshot(saved.wam))
    asked = chosen("eval", ["--base", f"hf://{ID}", "--eval.episodes", "7"])
    assert asked.base == loaded.path
    assert asked.base.name == hub.repos[f"models/{ID}"].branches["main"], "run.json: which commit"
    assert asked.config == replace(saved.config, eval=replace(saved.config.eval, episodes=7))
    assert asked.words[:2] == ("--base", f"hf://{ID}"), "run.json says what was typed"
    named = chosen("train", ["point", "--base", f"hf://{ID}"])
    assert named.base == loaded.path and named.config == point()


def test_it_is_fetched_once_and_used_without_the_hub(hub, run, monkeypatch):
    stored(hub, run)
    place = local(f"hf://{ID}")
    fetched = [line for line in hub.asked if line.startswith("GET /lfs")]
    assert local(f"hf://{ID}") == place
    assert [line for line in hub.asked if line.startswith("GET /lfs")] == fetched
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert local(f"hf://{ID}") == place
    hub.status = 404  # gone, which the hub says: then it is not used behind its back
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError, match="cannot reach|there is no"):
        local(f"hf://{ID}")


def test_a_dataset_of_the_hub(hub, tmp_path, run):
    pytest.importorskip("pyarrow", reason="needs wamrl[data]", exc_type=ImportError)
    from tests.support.lerobot_made import episode

    lerobot.write(tmp_path / "set", [episode(5, n) for n in range(3)], views=["top"], fps=10)
    files = [path for path in (tmp_path / "set").rglob("*") if path.is_file()]
    content = {str(p.relative_to(tmp_path / "set")): p.read_bytes() for p in files}
    content |= {"README.md": b"x", "data/evil.pkl": b"x"}
    hub.add("datasets/lab/set", content)
    assert "3" in done("data", "inspect", "hf://lab/set")
    place = local("hf://datasets/lab/set", "dataset")
    assert len(lerobot.open_lerobot(place)) == 3 and not (place / "README.md").exists()
    sentence = refused("sft", "point", "--smoke", "--data", "hf://lab/set", "--out", tmp_path / "o")
    assert "its state dimensions are 3, the environment's 4" in sentence
    named = chosen("sft", ["dataset", "--env.path", "hf://lab/set"])
    assert named.config.env.path == str(place)
    assert env_spec(named.config).name == "lab/set"
    hub.add("datasets/lab/text", {"data.csv": b"1"})
    assert "is not a LeRobotDataset" in refused("sft", "point", "--data", "hf://lab/text")


# --- trouble: one sentence, exit code 1, nothing half-made


def nothing_left(tmp_path: Path) -> bool:
    return not [path for path in tmp_path.iterdir() if path.name != "cache"]


def test_what_is_not_there(hub, tmp_path, monkeypatch):
    for words in (("pull", ID), ("eval", "--base", f"hf://{ID}"), ("serve", f"hf://{ID}")):
        assert "there is no hf://lab/point (model), or it is private" in refused(*words)
    assert "there is no hf://lab/set (dataset)" in refused("sft", "point", "--data", "hf://lab/set")
    with pytest.raises(ValueError, match="there is no hf://lab/point"):
        wamrl.load(f"hf://{ID}")
    assert nothing_left(tmp_path)


def test_who_is_not_known(hub, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert "does not know who asks for hf://lab/point (model): log in" in refused("push", run, ID)
    assert not hub.repos
    hub.add(f"models/{ID}", {"manifest.json": b"{}"}, private=True)
    assert "or it is private" in refused("pull", ID)
    for status, sentence in ((401, "does not know"), (403, "does not allow"), (500, "cannot")):
        hub.status = status
        assert sentence in refused("pull", ID)
    assert nothing_left(tmp_path)


def test_without_a_network(hub, run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot reach hf://lab/point (model): " in refused("pull", ID)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for words in (("pull", ID), ("push", run, ID), ("eval", "--base", f"hf://{ID}")):
        assert "cannot reach hf://lab/point (model): " in refused(*words)
    assert not hub.asked and nothing_left(tmp_path)


def test_a_hub_that_never_answers_keeps_nobody_waiting(hub, run, tmp_path, monkeypatch):
    monkeypatch.setattr("wamrl.hub.repo.TIMEOUT_S", 0.1)
    hub.silent = Event()
    try:
        for words in (("pull", ID), ("push", run, ID)):
            assert "cannot reach hf://lab/point (model): " in refused(*words)
    finally:
        hub.silent.set()
    assert nothing_left(tmp_path)


def test_a_cache_that_cannot_be_written(hub, run, tmp_path, monkeypatch):
    stored(hub, run)
    (tmp_path / "cache").write_text("a file")
    assert "set HF_HOME to another folder" in refused("pull", ID)
    assert nothing_left(tmp_path)


def test_a_mistyped_path_does_not_ask_the_hub(hub, tmp_path):
    for base in ("lab/point", "runs/poin", "hf:lab"):
        assert "there is no" in refused("eval", "point", "--base", base)
        with pytest.raises(ValueError):
            wamrl.load(base)
    assert "holds no demonstrations" in refused("sft", "point", "--data", "lab/set")
    assert not hub.asked and nothing_left(tmp_path)


def test_a_damaged_model(hub, run, tmp_path):
    for name in MODEL:
        files = stored(hub, run)
        files[name] = files[name][:-9] + b"\0" + files[name][-8:]
        hub.add(f"models/{ID}", files)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        for words in (("pull", ID), ("eval", "--base", f"hf://{ID}")):
            sentence = refused(*words)
            assert "corrupt" in sentence or "not readable" in sentence, sentence
        del files[name]
        hub.add(f"models/{ID}", files)
        shutil.rmtree(tmp_path / "cache")
        assert "is missing" in refused("pull", ID) or name == "manifest.json"
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["../evil.json", "a/../../evil", "/etc/evil", "meta/../../e\n"])
def test_a_listing_that_leads_out(hub, run, tmp_path, name):
    hub.add(f"models/{ID}", stored(hub, run) | {name: b"x"})
    assert "which leads out of it: do not trust it" in refused("pull", ID)
    hub.add("datasets/lab/set", {"meta/info.json": b"{}", name: b"x"})
    sentence = refused("sft", "point", "--data", "hf://lab/set")
    assert "which leads out of it: do not trust it" in sentence
    assert nothing_left(tmp_path) and not [line for line in hub.asked if "evil" in line]


class Harm:
    def __reduce__(self):
        return os.mkdir, ("canary",)


def test_a_pickle_beside_is_left_there(hub, run, tmp_path):
    harm = pickle.dumps(Harm())
    more = {"pytorch_model.bin": harm, "model.pkl": harm, "modeling.py": b"raise SystemExit"}
    hub.add(f"models/{ID}", stored(hub, run) | more)
    done("pull", ID)
    assert {path.name for path in (tmp_path / "point").iterdir()} == set(MODEL)
    wamrl.load(f"hf://{ID}")
    hub.add("models/lab/other", {"manifest.json": b"{}", **more})
    assert "holds no model of wamrl (config.json is missing)" in refused("pull", "lab/other")
    assert not (tmp_path / "canary").exists()
    assert not [line for line in hub.asked if "pytorch_model" in line or "pkl" in line]


def test_a_class_of_a_stranger_is_not_imported(hub, run, tmp_path):
    files = stored(hub, run)
    config = json.loads(files["config.json"])
    config["run"]["env"]["class"] = "canary_module:Env"
    files["config.json"] = json.dumps(config).encode()
    (tmp_path / "canary_module.py").write_text("raise SystemExit('executed')")
    path = tmp_path / "written"
    path.write_bytes(files["config.json"])
    digests = json.loads(files["manifest.json"]) | {"config.json": sha256(path)}
    files["manifest.json"] = json.dumps(digests).encode()
    hub.add(f"models/{ID}", files)
    assert "import canary_module first, if you trust it" in done("pull", ID)
    assert "canary_module" in refused("serve", f"hf://{ID}")
    assert "name its recipe" in refused("eval", "--base", f"hf://{ID}", code=2)


def test_what_cannot_be_pushed(hub, run, tmp_path):
    assert "there is no model" in refused("push", tmp_path / "nowhere", ID)
    broken = tmp_path / "broken"
    shutil.copytree(run / "checkpoints" / "final", broken)
    (broken / "config.json").write_text("{}")
    assert "corrupt" in refused("push", broken, ID)
    odd = tmp_path / "odd"
    shutil.copytree(run, odd)
    (odd / "summary.json").write_text('{"arms": {"after": 3}}')
    assert "holds what wamrl does not write" in refused("push", odd, ID)
    (tmp_path / "point").mkdir()
    assert "exists already: delete it or name another" in refused("pull", ID)
    assert not hub.asked


def test_names():
    assert parse_repo("lab/a.b") == Repo("lab/a.b")
    assert parse_repo(str(Path("hf://lab/a@refs/pr/3"))) == Repo("lab/a", "model", "refs/pr/3")
    assert parse_repo("hf://datasets/lab/a", "dataset") == Repo("lab/a", "dataset")
    for bad in ("lab", "hf://lab", "a/b/c", "../x", "hf://a/..", "a b/c", "hf://a/b@", "/a/b"):
        with pytest.raises(ValueError, match="write hf://OWNER/NAME"):
            parse_repo(bad)
    with pytest.raises(ValueError, match="is not the name of a model"):
        parse_repo("hf://datasets/lab/a")
    assert "write hf://OWNER/NAME" in refused("pull", "a/b/c", code=2)
    assert local("runs/a") == Path("runs/a") and local("hf:a") == Path("hf:a")
