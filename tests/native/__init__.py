"""The native engine: its plans, and its kernels at every level that this machine can run."""
