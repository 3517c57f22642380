"""What has been run for the tests of stages."""

BASELINES = {True: ("pretrained", "protonet"), False: ("pretrained",)}  # of a classification or not
