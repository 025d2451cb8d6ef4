"""A conversation: what joins hearing, turns, the brain, the speech line and the play-out, whatever carries it."""
