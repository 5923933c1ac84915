"""How the package reads, held by its syntax trees: one thought a line, no side effect hidden in
an expression, and what users configure or implement is explained.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wamrl"

MAX_COLUMNS = 100
MAX_NODES_PER_LINE = 10.5  # syntax-tree nodes over code lines, of the package
MAX_PACKED_PER_1000 = 8.0  # tuple assignments of unrelated values, per 1,000 code lines
MAX_UNEXPLAINED = 0.05  # of the public names of base classes, configs, types and API

MUTATING = frozenset(
    "add append appendleft clear discard extend insert pop popitem popleft remove"
    " setdefault sort update write".split()
)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Files and folders of which every public name has a docstring; and every class *Config anywhere.
EXPLAINED = {"base.py", "types.py", "config.py", "check.py", "recipes"}


@dataclass(frozen=True)
class Source:
    """One file, parsed once."""

    where: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def code_lines(self) -> int:
        """Lines that are not blank, not a comment, and not in a docstring."""
        prose: set[int] = set()
        for node in self.nodes:
            if isinstance(node, (ast.Module, *DEFINITIONS)) and (text := docstring(node)):
                prose.update(range(text.lineno, text.end_lineno + 1))
        code = 0
        for number, line in enumerate(self.lines, 1):
            words = line.strip()
            if words and not words.startswith("#") and number not in prose:
                code += 1
        return code

    def at(self, node: ast.AST, what: str) -> str:
        return f"{self.where}:{node.lineno}: {what}"


def docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that is the docstring of a module, class or function."""
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return first if isinstance(first.value.value, str) else None
    return None


def package() -> list[Source]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [Source(str(p.relative_to(ROOT)), p.read_text(encoding="utf-8")) for p in files]


SOURCES = package()


def names_in(node: ast.AST) -> set[str]:
    """What is read or written there, attributes and items in full: {"self.a", "self"}."""
    kinds = (ast.Name, ast.Attribute, ast.Subscript)
    return {ast.unparse(n) for n in ast.walk(node) if isinstance(n, kinds)}


def packed(source: Source) -> Iterator[str]:
    """`a, b = x, y`: two thoughts in a line. A swap or a step that uses the names of the other
    side (`a, b = b, a + b`) needs to be one statement.
    """
    for node in source.nodes:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)):
            continue
        for target in node.targets:
            if not isinstance(target, ast.Tuple) or len(target.elts) != len(node.value.elts):
                continue
            written = {ast.unparse(name) for name in target.elts}
            if not written & names_in(node.value):
                yield source.at(node, f"assigns {len(written)} values in one statement")


def side_effects(source: Source) -> Iterator[str]:
    """A comprehension that changes something else while it collects."""
    for node in source.nodes:
        if not isinstance(node, COMPREHENSIONS):
            continue
        elements = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for part in (n for element in elements for n in ast.walk(element)):
            if isinstance(part, ast.NamedExpr):
                yield source.at(part, "a comprehension's element assigns")
            elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
                if part.func.attr in MUTATING:
                    yield source.at(part, f"a comprehension's element calls {part.func.attr}")


def unformatted(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines, 1):
        if "# fmt: " + "skip" in line or "# fmt: " + "off" in line:
            yield f"{source.where}:{number}: switches the formatter off"


def long_lines(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines, 1):
        if len(line) > MAX_COLUMNS:
            yield f"{source.where}:{number}: {len(line)} columns, at most {MAX_COLUMNS}"


def public_names(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Those that a docstring is asked of: in the modules of EXPLAINED, everything public; in
    others, the classes named *Config. An override says what its base says already.
    """
    whole = bool(EXPLAINED & set(Path(source.where).parts))
    bases: dict[str, set[str]] = {}
    for node in source.tree.body:
        if not isinstance(node, DEFINITIONS) or node.name.startswith("_"):
            continue
        if not whole and not node.name.endswith("Config"):
            continue
        yield node, node.name
        if not isinstance(node, ast.ClassDef):
            continue
        inherited: set[str] = set()
        inherited.update(*(bases.get(ast.unparse(base), set()) for base in node.bases))
        own = [n for n in node.body if isinstance(n, DEFINITIONS) and not n.name.startswith("_")]
        bases[node.name] = inherited | {n.name for n in own}
        for member in own:
            if member.name not in inherited | {"validate", "build"} and whole:
                yield member, f"{node.name}.{member.name}"


def unexplained(source: Source) -> Iterator[str]:
    for node, name in public_names(source):
        if not docstring(node):
            yield source.at(node, f"{name} has no docstring")


def every(rule) -> list[str]:
    return [fault for source in SOURCES for fault in rule(source)]


@pytest.mark.parametrize("rule", [side_effects, unformatted, long_lines], ids=lambda r: r.__name__)
def test_nowhere_in_the_package(rule):
    faults = every(rule)
    assert not faults, "\n".join(faults)


def test_one_thought_a_line():
    faults = every(packed)
    most = MAX_PACKED_PER_1000 * sum(s.code_lines for s in SOURCES) / 1000
    assert len(faults) <= most, f"{len(faults)}, at most {most:.0f}:\n" + "\n".join(faults)


def test_lines_carry_little():
    """Over the package; where it fails, the files that carry the most are named."""
    nodes, lines = sum(len(s.nodes) for s in SOURCES), sum(s.code_lines for s in SOURCES)
    dense = sorted(SOURCES, key=lambda s: len(s.nodes) - MAX_NODES_PER_LINE * s.code_lines)
    worst = [f"{s.where}:1: {len(s.nodes) / max(1, s.code_lines):.1f}" for s in dense[:-11:-1]]
    assert nodes / lines <= MAX_NODES_PER_LINE, f"{nodes / lines:.2f}\n" + "\n".join(worst)


def test_what_users_configure_or_implement_is_explained():
    names = sum(1 for source in SOURCES for _ in public_names(source))
    faults = every(unexplained)
    assert names and len(faults) <= MAX_UNEXPLAINED * names, (
        f"{len(faults)} of {names} without a docstring:\n" + "\n".join(faults)
    )


@pytest.mark.parametrize(
    ("rule", "code", "line"),
    [
        (packed, "x = 1\na, b = f(), g()", 2),
        (packed, "a, b = b, a", None),
        (packed, "low, high = high, low + high", None),
        (packed, "self.a, b = b, self.a", None),
        (packed, "a, b = f()", None),
        (packed, "a = b = f(), g()", None),
        (side_effects, "[seen.update([s]) or seen[s] for s in starts]", 1),
        (side_effects, "{k: (v := 2) for k in a}", 1),
        (side_effects, "any(done.add(k) for k in a)", 1),
        (side_effects, "[y for x in a if (y := f(x))]", None),
        (side_effects, "[x.upper() for x in a]", None),
        (unformatted, "x = 1  # fmt: " + "skip", 1),
        (long_lines, "\n" + "x" * 101, 2),
        (long_lines, "x" * 100, None),
        (unexplained, "class AConfig:\n    x: int", 1),
        (unexplained, 'class AConfig:\n    """Why."""', None),
        (unexplained, "class A:\n    x: int", None),
    ],
)
def test_the_rules_themselves(rule, code: str, line: int | None):
    found = list(rule(Source("wamrl/some.py", code)))
    assert [f.split(":")[1] for f in found] == ([] if line is None else [str(line)]), found
