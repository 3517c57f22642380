"""The scripts that make example data."""
