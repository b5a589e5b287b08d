"""The façade: one service over any transport."""
