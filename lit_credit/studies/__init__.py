"""One room a study: what only that study can use."""
