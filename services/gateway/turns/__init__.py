"""Whose turn it is: everything of a conversation that can be decided without sound, network or clock."""
