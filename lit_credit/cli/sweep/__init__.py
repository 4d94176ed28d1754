"""Many runs from one command: ``lit-credit sweep --config BASE --grid GRID.yaml --out TABLE``.

From Python: :func:`sweep`. Nothing is imported here: the workers of a cluster only start processes
and need no torch.
"""
