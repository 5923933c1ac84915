"""`wamrl check`: what a user should read before a run is begun."""

from tests.support.command_line import wamrl


def test_check_shows_what_the_environment_is():
    code, out, err = wamrl("check", "tests.support.odd_recipes:odd")
    assert code == 0 and not err, out + err
    for line in (
        "told: 'slide it right'",
        "views: top, 16 x 16 pixels",
        "state: 2 dimensions",
        "actions: 2 dimensions, -5..5, -5..5",
        "horizon: 30 control steps",
        "success: info['is_success']",
        "state: agent_pos",
    ):
        assert line in out, (line, out)


def test_check_says_that_a_state_was_invented(monkeypatch):
    monkeypatch.setattr("tests.support.odd_recipes.MODE", "stateless")
    assert "state: invented, one zero" in wamrl("check", "tests.support.odd_recipes:odd")[1]
