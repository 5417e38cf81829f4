"""Floor 2: meaning given to names. A syntax tree, or Python expressions, become a mask.

`elaborate` and `signature` take a parsed module; `files` resolves its imports.
"""

from .entry import Given, Parameter, Signature, elaborate, signature
from .files import files
from .scope import Resolve

__all__ = ["Given", "Parameter", "Resolve", "Signature", "elaborate", "files", "signature"]
