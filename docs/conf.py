"""How Sphinx builds the documentation: Markdown with MyST, the Furo theme, docstrings of the installed packages."""

import sage_qd

project = "sage-qd"
author = "the sage-qd authors"
copyright = "the sage-qd authors"
version = release = sage_qd.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 100
toc_object_entries = False

html_theme = "furo"
html_title = f"sage-qd {release}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
