"""Many runs from one command: ``lit-credit sweep --config BASE --grid GRID.yaml --out TABLE``.

From Python: :func:`sweep`. Nothing is imported here, so that the workers
of a cluster, which only start processes, do without torch.
"""
