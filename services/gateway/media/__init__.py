"""Sound in and out of a conversation: playout, pacing, Opus, loss concealment, echo cancellation, WebRTC.

Refuses to know turns: what is to be said and when to fall silent is decided elsewhere.
"""
