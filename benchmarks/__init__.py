"""Speed and memory against the libraries that a user would pick instead: `make bench`, or `python -m benchmarks --help`."""
