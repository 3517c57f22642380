"""What is compared: MAML and its family, and the baselines; one file or folder each, besides shared modules."""

SUPPORT = (
    *("by_gradient", "contract"),
    *("fitted", "from_support", "support", "linear", "alone", "boosting", "support_features", "gaussian", "gp_grid", "on_features"),
)
