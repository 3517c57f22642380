"""What is compared: MAML and its family, and the baselines; a file each, apart from those that several share."""

SUPPORT = ("by_gradient", "contract", "fitted", "from_support", "gaussian", "gp_grid", "boosting", "linear", "alone", "support")
