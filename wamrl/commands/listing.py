"""The verb `list`: recipes, studies and tasks. No torch, no simulator."""

from __future__ import annotations

from wamrl.commands.options import ListOptions
from wamrl.envs.libero.assets import SUITES
from wamrl.envs.metaworld import tasks as metaworld
from wamrl.envs.robosuite import tasks as robosuite
from wamrl.recipes.find import listed


def show(o: ListOptions) -> None:
    """Print them all."""
    print("recipes:")
    for name, recipe in listed().items():
        print(f"  {name:<28} {recipe.summary}")
    print("\nstudies (wamrl study NAME):")
    for name, recipe in listed("StudyConfig").items():
        print(f"  {name:<28} {recipe.summary}")
    print("\nMetaWorld tasks (--env.task):")
    for name, task in metaworld.TASKS.items():
        marks = []
        if task.stageable:
            marks.append("staged: --env.stages 1..4")
        if task.holds:
            marks.append("multi-phase")
        told = f"  [{', '.join(marks)}]" if marks else ""
        print(f"  {name:<28} {task.instruction}{told}")
    print("\nrobosuite tasks (--env.task of a robosuite recipe such as lift; docs/robosuite.md):")
    for name, task in robosuite.TASKS.items():
        stages = len(task.things)
        print(f"  {name:<28} {task.instruction}{f'  [{stages} stages]' if stages > 1 else ''}")
    suites = ", ".join(f"{name} (0..{size - 1})" for name, size in SUITES.items())
    print(
        "\nLIBERO suites and tasks (--env.suite, --env.task; own environment, docs/libero.md): "
        f"{suites}"
    )
