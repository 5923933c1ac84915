"""The site: `python -m sphinx -W docs build/site`, then open build/site/index.html."""

import re

from docutils import nodes
from latex2mathml.converter import convert

import wamrl

project = "wamrl"
author = copyright = "the wamrl authors"
release = version = wamrl.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "wamrl"
html_show_sourcelink = False
html_math_renderer = "mathml"
default_role = "literal"  # docstrings write `names` as Markdown does
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True


def as_markdown_means(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text: stars are stars, and what is indented stands as it is."""
    found = []
    inside = False
    for line in lines:
        indented = line.startswith(" ")
        if line and indented != inside:
            found += ["", "::", ""] if indented else [""]
            inside = indented
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([*|_])", r"\\\1", part) for part in parts[::2]]  # not the `code`
        found.append(line if indented else "".join(parts))
    lines[:] = found


def formula(translator, node) -> None:
    """A formula as MathML, which browsers draw by themselves: no script, no server."""
    inline = isinstance(node, nodes.math)
    translator.body.append(convert(node.astext(), display="inline" if inline else "block"))
    raise nodes.SkipNode


def setup(app) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("autodoc-process-docstring", as_markdown_means)
