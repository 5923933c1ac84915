"""Two arms of the committed study against each other."""

import json
from pathlib import Path

from benchmarks.arms import main

STUDY = Path(__file__).parents[2] / "docs/study/metaworld"


def test_two_arms_differ_at_the_end_as_their_summaries_do(capsys):
    main(STUDY, "press-once", "wamrl", "bc_success")
    first, *along = capsys.readouterr().out.splitlines()
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
