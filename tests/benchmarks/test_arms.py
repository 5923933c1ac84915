"""Two arms of the committed study against each other."""

import json
from pathlib import Path

import pytest

from benchmarks.arms import compare, main
from wamrl.recipes.studies import metaworld

STUDY = Path(__file__).parents[2] / "docs/study/metaworld"
LIFT = ["arms", str(STUDY.parent / "robosuite"), "lift", "actor_success", "base"]


def test_two_arms_differ_at_the_end_as_their_summaries_do():
    first, *along = compare(metaworld(), STUDY, "press-once", "wamrl", "bc_success")
    summaries = [
        [
            json.loads((STUDY / f"press-once/{arm}/seed{s}/summary.json").read_text())
            for s in range(3)
        ]
        for arm in ("wamrl", "bc_success")
    ]
    mine, other = (sum(sum(s["arms"]["after"]["success"]) for s in arm) for arm in summaries)
    points = 100 * (mine - other) / 600
    assert f"{points:+.1f} [" in first and "n = 600" in first
    assert along[-1].startswith(f"after 5120 episodes: {points:+.1f}; ")
    assert len(along) == 4  # the evaluations during training, without that of the base


def test_a_study_of_another_simulator_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*LIFT, "--study", "robosuite"])
    main()
    assert "n = 600" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("study", "said"),
    [("metaworld", "no seed of lift has finished cells of both"), ("nope", "unknown study 'nope'")],
)
def test_a_pair_or_a_study_that_is_not_there_is_refused_in_a_sentence(monkeypatch, study, said):
    monkeypatch.setattr("sys.argv", [*LIFT, "--study", study])
    with pytest.raises(SystemExit, match=said):
        main()
