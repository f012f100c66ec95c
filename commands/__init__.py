"""The command line: its options, and what each mode does."""
