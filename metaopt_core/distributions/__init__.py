"""p(T): where tasks come from. Every task is a function of (seed, stream, index).

Each folder or module here is a distribution, except for the modules that all of them share.
"""

SUPPORT = ("batch", "content", "contract", "drawn", "findings", "in_units", "plain_figures", "preparing", "random", "splits")
