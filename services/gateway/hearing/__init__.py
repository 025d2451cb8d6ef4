"""What the user's sound says about turns: voice or not, and whether a turn sounds complete."""
