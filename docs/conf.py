"""Sphinx: Markdown pages (MyST), the furo theme, API pages from docstrings, references generated from the program."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import anofield.field.provenance  # noqa: F401 - before autodoc changes annotations of BaseModel, which its `Start` needs
from anofield._version import __version__

project = "anofield"
author = "The anofield authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_build", "_ext", "_static"]
highlight_language = "none"  # for blocks that name no language
html_theme = "furo"
html_title = f"anofield {__version__}"
html_static_path = ["_static"]
html_css_files = ["wrap.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # docstrings write `name` as Markdown does
add_module_names = False
autodoc_member_order = "bysource"
shapes = ("Volume", "FloatVolume", "Mask", "Classes", "Affine", "Shape3", "PathLike", "Json")
autodoc_type_aliases = {name: name for name in shapes}  # from anofield.typing, shown as in the source
autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "model_config"}  # an internal of pydantic
maximum_signature_line_length = 80  # longer signatures get one argument per line
python_display_short_literal_types = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
