"""Measure again what the README claims: `python -m benchmarks [--capture CSV]`."""

from benchmarks.edge import main

if __name__ == "__main__":
    main()
