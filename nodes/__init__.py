"""What a node is: its description, its metrics, and the series that they are made of."""
