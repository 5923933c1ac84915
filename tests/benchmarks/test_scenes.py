"""What a scene costs, as benchmarks/scenes.py prints it."""

import pytest

from benchmarks import scenes


def test_every_recipe_has_a_row(capfd, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scenes", "point", "two-goals", "--scenes", "3"])
    scenes.main()
    head, _, *rows = capfd.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows] == ["| point", "| two-goals"]
    for row in rows:
        first_s, _, more_s, _ = map(float, row.strip("| ").split(" | ")[1:])
        assert head.count("|") == row.count("|") and first_s > 0 and more_s >= 0


def test_one_scene_has_no_others(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scenes", "point", "--scenes", "1"])
    with pytest.raises(SystemExit):
        scenes.main()
    assert "--scenes must be 2 or more" in capsys.readouterr().err
