"""Two arms of the committed study against each other."""

import json
from pathlib import Path

import pytest

from benchmarks.arms import compare, main
from wamrl.recipes.studies import metaworld

STUDY = Path(__file__).parents[2] / "docs/study/metaworld"


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
    """And a pair that it does not have is refused in a sentence."""
    words = ["arms", str(STUDY.parent / "robosuite"), "lift", "actor_success", "base"]
    monkeypatch.setattr("sys.argv", [*words, "--study", "robosuite"])
    main()
    assert "n = 600" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="no seed of lift has finished cells of both"):
        main()
