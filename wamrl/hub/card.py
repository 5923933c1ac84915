"""The model card, README.md: what a model's own files say of it, and only what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wamrl.envs.base import EnvSpec
from wamrl.hub.repo import Repo, client
from wamrl.models.saved import CONFIG, load_state
from wamrl.report import read_summary
from wamrl.runs.record import read_record
from wamrl.runtime.files import MANIFEST
from wamrl.runtime.log import read_metrics
from wamrl.runtime.restore import restored
from wamrl.stats.paired import Paired

TAGS = ["robotics", "world-model", "world-action-model", "reinforcement-learning"]
CURVE = "learning_curve.png"
SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Described:
    """A model and what its run knows of it."""

    repo: Repo
    about: dict[str, Any]  # its config.json, see `models.saved`
    env: EnvSpec
    weights: int  # numbers
    name: str  # "final", "best", ...
    run: Path | None  # its run folder; None: it was taken out of it

    @property
    def config(self) -> dict[str, Any]:
        """Of its run, resolved; empty if it is not known."""
        return self.about.get("run") or {}


def describe(repo: Repo, folder: Path) -> Described:
    """The model of a folder; ValueError of one sentence if it is none or damaged."""
    if (folder / MANIFEST).is_file() and not (folder / CONFIG).is_file():
        raise ValueError(
            f"{folder} is a checkpoint to go on from, not a model folder: finish its run, or name "
            "its checkpoints/best or base"
        )
    state = load_state(folder)
    run = folder.resolve().parents[1] if folder.resolve().parent.name == "checkpoints" else None
    weights = sum(tensor.numel() for tensor in state.pop("wam").values())
    env = restored(EnvSpec, state["env"], "env")
    return Described(
        repo=repo, about=state, env=env, weights=weights, name=folder.resolve().name, run=run
    )


def model_card(model: Described, license: str = "") -> str:
    """README.md. license: as the hub names it; "": none is named.

    ValueError of one sentence if a file of the run is damaged.
    """
    header = client(model.repo).ModelCardData(
        library_name="wamrl", pipeline_tag="robotics", tags=TAGS, license=license or None
    )
    try:
        parts = [_introduction(model), _success(model), _picture(model), _facts(model)]
        parts += [_usage(model), _origin(model)]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{model.run} holds what wamrl does not write ({error!r}): push the model folder "
            "alone, copied out of it"
        ) from error
    text = "\n\n".join(part for part in parts if part)
    return f"---\n{header.to_yaml()}\n---\n\n{text}\n"


def has_curve(model: Described) -> bool:
    """Does the run's learning curve tell of this model?"""
    return model.run is not None and model.name != "base" and (model.run / CURVE).is_file()


def _introduction(model: Described) -> str:
    title = model.config.get("name") or model.repo.name
    told = model.env.instructions or (model.env.instruction,)
    said = "; ".join(f"*{_plain(text)}*" for text in told[:20])
    return (
        f"# {_plain(title)}\n\nA World-Action model of wamrl: from camera images and the robot's "
        f"state it imagines what will be seen, and acts.\nTask `{_plain(model.env.name)}`: {said}"
    )


def _success(model: Described) -> str:
    """The evaluations that are known to be of this model, as a table."""
    arms, pair = evaluations(model)
    lines = []
    if arms:
        lines += ["## Success", ""]
        lines += ["| | success | 95 % interval | episodes | sampler |", "|---|---|---|---|---|"]
    for name, arm in arms.items():
        lines.append(_row(name, arm))
        for task, part in arm.get("tasks", {}).items():
            lines.append(_row(f"{name}, {_plain(task)}", part | {"sampler": arm["sampler"]}))
    if arms:
        lines += ["", "Closed loop, on held-out initial states that nothing was trained on or "]
        lines[-1] += "chosen by; success is the environment's own. Intervals are Wilson's."
    if pair:
        lines.append(
            f"This model less the one before online training, on the same {pair['episodes']} "
            f"initial states, in points with the 95 % interval: {Paired(**pair).points}."
        )
    if "choose_success" in model.about:
        lines += ["", f"Kept after iteration {model.about['iteration']}, where its success on "]
        lines[-1] += f"training states was {model.about['choose_success']:.1%}: by that it was "
        lines[-1] += "chosen, so it is no measurement."
    return "\n".join(lines)


def evaluations(model: Described) -> tuple[dict[str, dict], dict | None]:
    """What summary.json says of this very model, by what the card calls it; and the paired
    difference to the one before. Empty where the run has not measured it.
    """
    if model.run is None or not (model.run / SUMMARY).is_file():
        return {}, None
    summary = read_summary(model.run / SUMMARY)
    arms = summary["arms"]
    if model.name == "final" and _measured_last(model.run, arms.get("after")):
        known = {"before online training": arms.get("before"), "this model": arms["after"]}
        pair = summary["paired"].get("after - before")
        return {name: arm for name, arm in known.items() if arm}, pair
    if model.name == "base":
        # a study's base cell has been measured once, as what it is after
        alone = not (model.run / "checkpoints" / "final").is_dir()
        arm = arms.get("before") or (arms.get("after") if alone else None)
        return ({"this model": arm} if arm else {}), None
    return {}, None


def _measured_last(run: Path, arm: dict | None) -> bool:
    """Is it the evaluation after the run's last iteration? A run that was prolonged and then
    interrupted has a newer model than summary.
    """
    rows = read_metrics(run)
    if arm is None or not rows:
        return False
    last = max(row["step"] for row in rows)
    point = {name: value for row in rows if row["step"] == last for name, value in row.items()}
    return (point.get("eval/success"), point.get("eval/episodes")) == (arm["rate"], arm["episodes"])


def _row(name: str, arm: dict) -> str:
    low, high = arm["wilson95"]
    rate = f"{arm['successes']}/{arm['episodes']} = {arm['rate']:.1%}"
    return f"| {name} | {rate} | {low:.1%} to {high:.1%} | {arm['episodes']} | {arm['sampler']} |"


def _picture(model: Described) -> str:
    return f"![learning curve]({CURVE})" if has_curve(model) else ""


def _facts(model: Described) -> str:
    env = model.env
    said = model.about["model"]
    h, w = env.image_hw
    rows = {
        "cameras": f"{', '.join(map(_plain, env.views))}: {h} x {w} pixels each (height x width)",
        "state": f"{env.proprio_dim} numbers",
        "actions": f"{env.action_dim} numbers, {said['chunk']} actions at a time",
        "imagined": f"{', '.join(map(str, said['frame_offsets']))} control steps ahead",
        "control rate": f"{env.control_hz:g} Hz" if env.control_hz else "",
        "weights": f"{model.weights:,}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join(["## What it sees and does", "", "| | |", "|---|---|", *lines])


def _usage(model: Described) -> str:
    foreign = sorted(_modules(model.about))
    imports = "".join(f"import {module}  # classes of its configuration\n" for module in foreign)
    sampler = _sampler(model)
    how = f', sampler="{sampler}"' if sampler else ""
    keys = [f'"observation.images.{_plain(view)}": ...' for view in model.env.views]
    seen = ", ".join([*keys, '"observation.state": ...'])
    code = f'import wamrl\n{imports}\nrun = wamrl.load("{model.repo}"{how})\n'
    code += f"actions = run.act({{{seen}}})\n"
    if model.config:
        shell = f"wamrl serve {model.repo}\n"
    else:
        shell = f"wamrl serve {model.repo} --recipe RECIPE\n"
    return f"## Use it\n\n```python\n{code}```\n\n```bash\n{shell}```"


def _sampler(model: Described) -> str:
    """That of the measured success, where the model would not choose it by itself."""
    arm = evaluations(model)[0].get("this model")
    deployed = model.config.get("flow", {}).get("deploy", "auto")
    own = model.about["sampler"] or "zero" if deployed == "auto" else deployed
    return arm["sampler"] if arm and arm["sampler"] != own else ""


def _modules(said: Any) -> set[str]:
    """Modules that are not wamrl's, of the classes of a resolved configuration."""
    found = set()
    if isinstance(said, dict):
        module = str(said.get("class", "")).rpartition(":")[0]
        found = {module} if module and module.partition(".")[0] != "wamrl" else set()
        for part in said.values():
            found |= _modules(part)
    return found


def _origin(model: Described) -> str:
    record = None if model.run is None else read_record(model.run)
    if record is None:
        return ""
    rows = {
        "wamrl": record.versions.get("wamrl", ""),
        "commit": record.commit.get("wamrl", ""),
        "torch": record.versions.get("torch", ""),
        "recipe": record.recipe,
        "command": record.verb,
        "begun": record.started,
    }
    lines = [f"| {name} | {_plain(value)} |" for name, value in rows.items() if value]
    return "\n".join(["## Made with", "", "| | |", "|---|---|", *lines])


def _plain(text: str) -> str:
    """One line, without what Markdown or HTML would read in it."""
    shown = "".join(c if c.isprintable() and c not in "`|<>*[]" else " " for c in str(text))
    return " ".join(shown.split())
