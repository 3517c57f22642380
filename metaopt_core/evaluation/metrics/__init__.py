"""The metrics by which methods are judged, one in each file (`metaopt_core.spec.metric` has the contract)."""

SUPPORT = ("weighting",)
