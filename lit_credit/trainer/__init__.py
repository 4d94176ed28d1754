"""What lit_credit asks of Lightning's Trainer and writes to its loggers."""
