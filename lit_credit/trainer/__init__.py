"""Reading the state of Lightning's Trainer, and writing to its loggers."""
