"""One folder per study: its data, task, models, own diagnostic, own figures and own functions."""
