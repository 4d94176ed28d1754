"""Probing, capturing, histories and logging: the only place that touches Lightning's internals."""
