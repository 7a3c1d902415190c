"""Sphinx configuration: ``python -m sphinx -W -b html docs docs/_build/html``."""

import os
import warnings
from importlib.metadata import version as _version

# Examples are executed for their pictures; nobody watches a progress bar or a window there.
os.environ.setdefault("MPLBACKEND", "agg")

project = "xpsolve"
author = "The xpsolve founders"
copyright = "2026, The xpsolve founders"
version = release = _version("xpsolve")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "Thumbs.db"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}
# An example that warns (a solver that did not converge, say) is not fit to be shown.
warnings.filterwarnings("error", category=UserWarning, module=r"xpsolve\.")

html_theme = "pydata_sphinx_theme"
html_title = f"xpsolve {release}"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False
