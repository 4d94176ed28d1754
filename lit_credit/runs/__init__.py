"""What a run leaves on disk: histories, folders, checkpoints, tables."""
