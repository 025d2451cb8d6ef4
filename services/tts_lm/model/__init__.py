"""The speech model itself: torch code and pure rules, no transport, no threads."""
