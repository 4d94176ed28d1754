"""Checkpoints of a rule: saved, loaded, and compared with a run that goes on from one."""
