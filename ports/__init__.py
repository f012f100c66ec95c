"""Port traffic: one small model for every port and direction of network devices."""
