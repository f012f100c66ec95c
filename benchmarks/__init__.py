"""What the documentation claims, measured again by one command."""
