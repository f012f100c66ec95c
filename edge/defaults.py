"""What training and evaluation do unless an option says otherwise: known without loading either."""

DEFAULT_EPOCHS = 10
# The optimiser's steps that a network needs to learn. A third of a day of records gives them in the default
# epochs. On recordings of 400 records, more steps predict held-out records no better.
ENOUGH_STEPS = 1000
# Which one, and why, is in docs/measurements.md.
DEFAULT_PERCENTILE = 99.0
