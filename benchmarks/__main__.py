"""Measure again the figures of the README: `python -m benchmarks [--capture CSV]`."""

from benchmarks.edge import main

if __name__ == "__main__":
    main()
