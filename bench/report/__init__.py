"""What a run found out: how it is saved, compared with goals, and shown."""
