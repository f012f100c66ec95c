"""The edge half: datasets, the network, scores, thresholds, verdicts, and the daemon of test mode."""
