"""Floor 8½: patterns in editors: words and colours, faults, hover, definitions, completion, layout.

words.py        the words of the language, read from its grammar
lexer.py        colours for Pygments, registered as ``attn``; imported by Pygments alone
textmate.py     the same as a TextMate grammar, for VS Code and others (editors/vscode)
answers.py      questions of an editor about a place in a text, answered as plain values
server.py       the language server, on pygls: extra ``lsp``
"""

from .answers import Place, complete, definition, faults, formatted, hover
from .opening import serve
from .textmate import textmate
from .words import BUILT_IN, CONTEXTUAL, KINDS, RESERVED

__all__ = [
    "BUILT_IN", "CONTEXTUAL", "KINDS", "RESERVED", "Place", "complete", "definition", "faults", "formatted", "hover",
    "serve", "textmate",
]  # fmt: skip
