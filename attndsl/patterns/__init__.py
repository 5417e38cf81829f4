"""Floor 3: the patterns people know by name, written in the language itself (prelude.attn)."""

__all__: list[str] = []
