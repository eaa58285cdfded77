"""Sphinx: the documentation, built offline by ``make docs``; warnings are errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cnnvis_ray import __version__

project = "cnnvis_ray"
author = copyright = "The cnnvis_ray authors"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "description": "what convolutional networks see"}
html_show_sphinx = False

myst_heading_anchors = 3
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
