"""How well a model does, from counts: every figure comes with its interval. No I/O."""
