"""The architecture, held by reading the source: who imports whom,
what the core does without, how long things get.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wamrl"
FILES = sorted(PACKAGE.rglob("*.py"))

MODEL = {"models.base", "models.flow", "models.wam"}
LOOP = {"types", "runtime", "config", "stats", "report", "rl", "data", "envs.base", "pool"}
LOOP |= {"rewards.base", "rewards.episode_scores", "models.saved", *MODEL}
EVALUATED = LOOP | {"rollout", "evaluate"}

# room -> what it may import, besides itself.
# "models" means all of that room, "models.flow" that file only.
RULES: dict[str, set[str]] = {
    "types": set(),
    "stats": set(),
    "runtime": {"types"},
    "envs": {"types", "runtime.images", "runtime.files", "runtime.ranges"},
    "pool": {"types", "runtime", "envs.base", "envs.checked"},
    "models": {"types", "runtime", "envs.base"},
    "rewards": {"types", "runtime.dist", "runtime.ranges", "stats"},
    "data": {"types", "runtime", "envs.base", "envs.checked"},
    "report": {"types", "runtime", "stats"},
    "rollout": {"types", "runtime", "pool", "report", "rewards.base", *MODEL},
    "rl": {"types", "runtime", "rollout.types", "models.rounding", *MODEL},
    "config": {
        "types",
        "runtime.cores",
        "runtime.ranges",
        "pool",
    },  # and every class named *Config, see below
    "evaluate": LOOP | {"rollout"},
    "sft": LOOP,
    "diagnostics": LOOP | {"rollout"},
    "reward_comparison": LOOP | {"rollout"},
    "online": EVALUATED,
    "train": EVALUATED | {"diagnostics", "online"},
    "runs": EVALUATED | {"sft", "online"},
    "runs.plan": EVALUATED | {"sft", "online", "models.latent"},
    "runs.passes": EVALUATED | {"models.check"},
    "study": EVALUATED | {"runs", "train"},
    "serve": EVALUATED | {"runs"},
    "page": {"types", "runtime", "stats", "report"}
    | {"study.claims", "study.report", "study.results", "study.tables"},
    "hub": EVALUATED | {"runs"},
    "commands": EVALUATED
    | {"hub", "runs", "train", "study", "serve", "reward_comparison", "page"}
    | {"envs.check", "models.check", "models.text", "rewards.check", "recipes.find"},
    "commands.listing": {"recipes.find", "envs.libero.assets"}
    | {"envs.metaworld.tasks", "envs.robosuite.tasks"},
    "api": EVALUATED | {"hub", "runs", "train", "online", "serve", "commands", "recipes.find"},
    "recipes": {"*"},
    "cli": {"*"},
}
ENTRANCES = {"cli", "__main__"}  # nobody imports these
EXTRAS = (
    "metaworld",
    "mujoco",
    "libero",
    "robosuite",
    "torchvision",
    "lerobot",
    "transformers",
    "diffusers",
    "accelerate",
    "peft",
    "ray",
)
EXTRAS += ("openpi_client",)
EXTRAS += ("cv2", "gym_pusht", "h5py", "pyarrow", "PIL")
CHECKED = {"TYPE_CHECKING"}
EXTRAS += ("jinja2", "plotly", "wandb", "trackio", "huggingface_hub", "rerun")
MAX_FUNCTION, MAX_FILE, MAX_TRAIN = 70, 400, 149


def module_name(path: Path) -> str:
    """wamrl/envs/base.py -> "envs.base";
    wamrl/envs/__init__.py -> "envs"; wamrl/__init__.py -> "".
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p) for p in FILES}


def imports(path: Path, source: str) -> list[tuple[int, str, str]]:
    """Every import of our own, also inside functions: (line, module, name taken from it or "")."""
    package = ["wamrl", *path.relative_to(PACKAGE).parent.parts]
    found: list[tuple[int, str, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name, "") for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, base, a.name) for a in node.names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value, ""))
    ours = [
        (n, m.removeprefix("wamrl").lstrip("."), name)
        for n, m, name in found
        if m.split(".")[0] == "wamrl"
    ]
    # `from wamrl.models import flow` names the file models/flow.py
    joined = [(n, f"{m}.{name}".lstrip("."), m, name) for n, m, name in ours]
    return [
        (n, whole, "") if name and whole in MODULES else (n, m, name)
        for n, whole, m, name in joined
    ]


def at_once(source: str) -> set[int]:
    """Lines of the imports that run when the module is imported: those outside of functions, and
    not for type checkers only."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) or ast.unparse(getattr(node, "test", node)) in CHECKED:
            continue
        found |= {n.lineno for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)}
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def allowed(importer: str, target: str, name: str) -> bool:
    # the bare package has nothing to offer
    if not target or (room(target) in ENTRANCES and importer != "__main__"):
        return importer in ENTRANCES and not target
    if importer in ENTRANCES or room(target) == room(importer):
        return True
    if importer == "config" and name.endswith("Config"):
        return True
    rule = RULES.get(importer, RULES[room(importer)])
    return "*" in rule or target in rule or room(target) in rule


def violations(path: Path, source: str) -> list[str]:
    importer, where = module_name(path), path.relative_to(ROOT)
    if not importer:
        return [
            f"{where}:{n}: importing wamrl must do nothing"
            for n, target, name in imports(path, source)
            if room(target or name) != "api" or n in at_once(source)
        ]
    if room(importer) not in RULES | dict.fromkeys(ENTRANCES, ()):
        return [f"{where}: no rule for this room; add one to RULES"]
    return [
        f"{where}:{line}: {importer} may not import {target or 'wamrl'}{':' + name if name else ''}"
        for line, target, name in imports(path, source)
        if not allowed(importer, target, name)
    ]


def test_rooms_import_only_what_the_table_allows():
    assert FILES
    faults = [fault for path in FILES for fault in violations(path, path.read_text())]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "source", "ok"),
    [
        ("rl/ppo.py", "from wamrl.models.flow import sde_step", True),
        ("rl/ppo.py", "from wamrl.models.video_dit import VideoDiT", False),
        ("rl/ppo.py", "from wamrl import models", False),
        ("rl/ppo.py", "from ..envs import base", False),
        ("rl/ppo.py", "from . import advantage", True),
        ("rl/ppo.py", "def f():\n    import wamrl.envs.base", False),
        ("rl/ppo.py", "import importlib\nimportlib.import_module('wamrl.cli')", False),
        ("envs/point.py", "from wamrl.data import demos", False),
        ("data/demos.py", "from wamrl.envs.base import Env", True),
        ("data/demos.py", "from wamrl.pool.pool import Pool", False),
        ("data/demos.py", "from wamrl.runtime.processes import stop", True),
        ("config.py", "from wamrl.models.video_dit import VideoDiTConfig", True),
        ("config.py", "from wamrl.models.video_dit import VideoDiT", False),
        ("train.py", "from wamrl.envs.point import PointConfig", False),
        ("train.py", "from wamrl.recipes import quickstart", False),
        ("recipes/quickstart.py", "from wamrl.envs.point import PointConfig", True),
        ("recipes/quickstart.py", "from wamrl import cli", False),
        ("types.py", "from wamrl.runtime.dist import rank", False),
        ("__init__.py", "from wamrl.types import Obs", False),
        ("__init__.py", "from wamrl.api.run import Run", False),
        ("__init__.py", "def f():\n    from wamrl import api", True),
        ("__init__.py", "def f():\n    from wamrl.types import Obs", False),
        ("__init__.py", "if TYPE_CHECKING:\n    from wamrl.api.run import Run", True),
        ("serve/server.py", "from wamrl.api.run import Run", False),
        ("api/run.py", "from wamrl.serve.policy import Policy", True),
        ("newroom.py", "import torch", False),
    ],
)
def test_the_check_itself(path: str, source: str, ok: bool):
    assert (not violations(PACKAGE / path, source)) == ok


def is_core(module: str) -> bool:
    """All but the wrappers of simulators: those may import theirs at the top,
    and nobody else may import them there.
    """
    return room(module) != "envs" or module in {"envs", "envs.base"}


BLOCKER = """
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"the core must not import {{name}}")
sys.meta_path.insert(0, Blocker())
for module in {modules!r}:
    try:
        importlib.import_module(module)
    except ImportError as error:
        sys.exit(f"{{module}}: {{error}}")
"""


def test_core_imports_without_simulators():
    modules = [f"wamrl.{m}".rstrip(".") for m in sorted(MODULES) if is_core(m) and m != "__main__"]
    code = BLOCKER.format(blocked=EXTRAS, modules=modules)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_package_never_reaches_back_into_its_checkout():
    """No import and no path of the benchmarks, the tests or the examples."""
    reaching = re.compile(
        r"\b(import|from) (benchmarks|tests|examples)\b|[\"'](benchmarks|tests)[.\"']"
    )
    faults = [str(path) for path in FILES if reaching.search(path.read_text())]
    assert not faults, faults


def test_importing_wamrl_does_nothing():
    code = "import sys, wamrl; print(*{'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip(), f"import wamrl also imported {done.stdout}"


def test_the_method_fits_on_a_page():
    train = PACKAGE / "train.py"
    lines = len(train.read_text().splitlines()) if train.exists() else 0
    assert lines <= MAX_TRAIN, f"wamrl/train.py has {lines} lines; at most {MAX_TRAIN}"


def test_functions_and_files_stay_short():
    long: list[str] = []
    for path in FILES:
        text, where = path.read_text(), path.relative_to(ROOT)
        if (lines := len(text.splitlines())) > MAX_FILE:
            long.append(f"{where}: {lines} lines, at most {MAX_FILE}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if (size := node.end_lineno - node.lineno + 1) > MAX_FUNCTION:
                    long.append(
                        f"{where}:{node.lineno}: {node.name} has {size} lines, at most "
                        f"{MAX_FUNCTION}"
                    )
    assert not long, "\n".join(long)
