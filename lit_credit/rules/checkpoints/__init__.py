"""Checkpoints of a rule: saving, loading, and comparing a resumed run with its checkpoint."""
