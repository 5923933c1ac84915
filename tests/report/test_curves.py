"""The learning curve of a run, from made-up lines of its log."""

from wamrl.report import Point, run_curves


def row(step: int, episodes: int = 0, **values) -> dict:
    line = {"step": step} | ({"rollout/episodes": episodes} if episodes else {})
    return line | {name.replace("__", "/"): value for name, value in values.items()}


def evaluated(sampler: float, success: float, n: float = 10.0, **others) -> dict:
    rates = {f"eval/success/{name}": rate for name, rate in others.items()}
    return {"eval/sampler": sampler, "eval/success": success, "eval/episodes": n} | rates


LOG = [
    row(0) | {"heldout/copy_ratio/4": 0.5},
    row(0) | evaluated(1.0, 0.25, 4.0, explore=0.0, ode=0.25, zero=0.5),
    row(1, 32, rollout__success_fresh=0.5, rollout__fresh=20.0),
    row(2, 30, rollout__success_fresh=None, rollout__fresh=0.0)
    | evaluated(1.0, 0.5, ode=0.5, zero=0.1),
    row(3, 32, rollout__success_fresh=0.75, rollout__fresh=4.0),
    row(3) | evaluated(1.0, 1.0, 4.0, explore=0.5, ode=1.0, zero=0.0),
]


def test_the_curves_of_a_run_stand_where_its_episodes_were():
    """An evaluation comes after its iteration's episodes;
    these show what those before them have taught.
    """
    curves, thin = run_curves(LOG, ("explore", "ode", "zero"))
    assert thin == ("sampler 'explore'", "sampler 'zero'")
    main = "evaluated, sampler 'ode' (held-out states)"
    assert list(curves) == [main, *thin, "exploring (fresh training states)"]
    assert curves[main] == [
        Point(x=0, successes=1, episodes=4),
        Point(x=62, successes=5, episodes=10),
        Point(x=94, successes=4, episodes=4),
    ]
    assert [p.x for p in curves["sampler 'explore'"]] == [0, 94]
    exploring = curves["exploring (fresh training states)"]
    assert exploring == [
        Point(x=0, successes=10, episodes=20),
        Point(x=62, successes=3, episodes=4),
    ]


def test_where_the_deployed_sampler_changed_all_three_are_drawn():
    changed = [*LOG[:-1], row(3) | evaluated(2.0, 0.0, 4.0, explore=0.5, ode=1.0, zero=0.0)]
    curves, thin = run_curves(changed, ("explore", "ode", "zero"))
    assert thin == ("sampler 'explore'", "sampler 'ode'", "sampler 'zero'")
    assert next(iter(curves)) == "evaluated, deployed sampler (held-out states)"


def test_a_log_without_evaluations_shows_exploration():
    curves, _ = run_curves(LOG[2:3], ("explore", "ode", "zero"))
    assert list(curves) == ["exploring (fresh training states)"]
