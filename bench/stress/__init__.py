"""The server under more than it can answer and for hours; what logs, traces and a policy of queueing cost."""
