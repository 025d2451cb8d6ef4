"""The talker: text deltas in, codec frames out."""
