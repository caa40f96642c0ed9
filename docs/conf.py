"""Sphinx configuration: the pages, and the docstrings of every public name."""

import re

import torch

import skprune

project = "skprune"
author = "the skprune developers"
copyright = f"2026, {author}"
version = release = skprune.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "literal"
# A link to a name of ours that no page has is an error; types in words are none.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!skprune\.).*")]

# A subpackage's page lists its __all__, though the objects live in private modules.
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "download_all_examples": False,
    "nested_sections": False,
}

html_theme = "alabaster"
html_theme_options = {
    "description": "Prune neural networks by game theory",
    "fixed_sidebar": True,
    "page_width": "1100px",
    "sidebar_width": "240px",
}


def unlink_foreign_labels(app, what, name, obj, options, lines):
    """Keep only the text of the links that scikit-learn's docstrings hold."""
    if (getattr(obj, "__module__", None) or "").startswith("sklearn."):
        text = re.sub(r":ref:`([^`<]+?)\s*(<[^`]*>)?`", r"\1", "\n".join(lines))
        lines[:] = text.split("\n")


def skip_torch_members(app, what, name, obj, skip, options):
    """Leave out what is inherited from torch, whose labels are not ours."""
    kinds = (torch.Tensor, torch.optim.AdamW)
    return True if any(getattr(kind, name, skip) is obj for kind in kinds) else None


def setup(app):
    app.connect("autodoc-skip-member", skip_torch_members)
    app.connect("autodoc-process-docstring", unlink_foreign_labels)
