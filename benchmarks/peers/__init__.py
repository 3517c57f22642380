"""The same meta-training, each time as a competent user of another library writes it."""
