"""p(T): where tasks come from. Every task is a function of (seed, stream, index)."""
