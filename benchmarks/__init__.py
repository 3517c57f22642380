"""Speed and memory compared with the libraries that a user would use instead: `make bench`, or `python -m benchmarks --help`."""
