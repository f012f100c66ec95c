"""A node: its description, its metrics, and the series that they are made of."""
