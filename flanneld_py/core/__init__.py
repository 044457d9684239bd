"""The decisions: pure functions and frozen values, no input, no output, no clock and no randomness of their own."""
