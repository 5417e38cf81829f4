"""Functions of reals for attentions in Python: ``score=lambda s: 50.0 * attndsl.reals.tanh(s / 50.0)``."""

from attndsl.frontend import dot, exp, exp2, log, relu, sigmoid, softplus, sqrt, tanh

__all__ = ["dot", "exp", "exp2", "log", "relu", "sigmoid", "softplus", "sqrt", "tanh"]
