"""What knows nothing of the product: files, times, values, and the alert rule that both halves share."""
