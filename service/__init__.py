"""What any service needs: its loop, log, metrics, watched files, and a store that outlives it."""
