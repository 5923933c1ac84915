"""What a scene costs, as benchmarks/scenes.py prints it."""

import pytest

from benchmarks import scenes


@pytest.mark.parametrize("recipe", ["point", "two-goals"])
def test_a_recipe_has_a_row(recipe):
    name, *costs = scenes.measure(recipe, 3).strip("| ").split(" | ")
    first_s, _, more_s, _ = map(float, costs)
    assert name == recipe and first_s > 0 and more_s >= 0


def test_one_scene_has_no_others(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scenes", "point", "--scenes", "1"])
    with pytest.raises(SystemExit):
        scenes.main()
    assert "--scenes must be 2 or more" in capsys.readouterr().err
