"""What methods are judged by: a metric a file (`metaopt_core.spec.metric` has the contract)."""

SUPPORT = ("weighting",)
