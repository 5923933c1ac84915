"""What the console says of an iteration."""

from wamrl.online.lines import (
    COLUMNS,
    HEADER,
    base_warning,
    iteration_line,
    iteration_warning,
)

METRICS = {
    "rollout/success": 0.415,
    "rollout/mixed_outcome": 0.25,
    "rollout/length": 31.25,
    "actor/kl": 0.01234,
    "actor/clip_fraction": 0.081,
    "world/video_loss": 0.3,
    "time/rollout": 30.2,
    "time/score": 12.0,
    "time/actor": 0.1,
    "time/online": 9.6,
}


def test_a_line_stands_under_its_header():
    line = iteration_line(3, 12, METRICS)
    assert line.startswith("     3/12    41.5%        -")
    assert line.endswith("52 (rollout 30, score 12, online 10)")
    for title, name, form in COLUMNS:
        end = HEADER.index(f" {title}") + 1 + len(title)
        value = METRICS.get(name)
        assert line[:end].endswith(" -" if value is None else f" {value:{form}}"), title
    assert len(HEADER) <= 100


def test_a_line_of_nothing_measured():
    assert "(" not in iteration_line(1, 2, {}) and iteration_line(1, 2, {}).count(" -") == 8


def test_where_nothing_can_be_learned_it_is_said():
    assert "none of 50" in base_warning(0, 50) and base_warning(1, 50) == ""
    assert "no episode succeeded" in iteration_warning({"rollout/success": 0.0})
    assert "every episode succeeded" in iteration_warning({"rollout/success": 1.0})
    some = {"rollout/success": 0.5}
    assert "both outcomes" in iteration_warning(some | {"rollout/mixed_outcome": 0.0})
    assert iteration_warning(some) == iteration_warning(METRICS) == ""
