"""Where a conversation can be, and the words that events and actions share. Plain values, nothing else."""

from __future__ import annotations

from enum import Enum

LISTEN_RATE_HZ = 16_000


class State(Enum):
    """Where a conversation is. Every state but LISTENING and CLOSED has a timer that ends it."""

    CONNECTING = "connecting"  # nobody is reachable yet
    LISTENING = "listening"  # nobody speaks
    USER_SPEAKING = "user_speaking"
    ENDPOINTING = "endpointing"  # a silence that may be the end; an answer may already be made, held
    THINKING = "thinking"  # the turn is committed, nothing of the answer is out
    SPEAKING = "speaking"
    HOLD = "hold"  # muted: somebody may be barging in
    INTERRUPTED = "interrupted"  # passed through within one step, told so that it can be seen
    RECOVERING = "recovering"  # a stage failed: second attempt, then an apology
    SUSPENDED = "suspended"  # the transport is lost, the conversation is kept
    CLOSING = "closing"  # being released
    CLOSED = "closed"


class Policy(Enum):
    """Who ends the user's turn."""

    SERVER_VAD = "server_vad"  # the machine, from silence and the turn model
    MANUAL = "manual"  # the client, with `CommitInput`
    MODEL_DUPLEX = "model_duplex"  # the model speaks when it likes: nothing is held or cut because of speech


class BargeIn(Enum):
    """What a candidate does to the agent's voice until it is decided."""

    PAUSE = "pause"
    DUCK = "duck"  # quieter, not muted
    CONFIRM_ONLY = "confirm_only"  # nothing until the interruption is certain


class Kind(Enum):
    """What an epoch says."""

    ANSWER = "answer"
    CONTINUATION = "continuation"  # what was left of `continues` when noise interrupted it
    SAY = "say"  # a text that somebody asked to be said
    APOLOGY = "apology"  # ready-made sound: the answer failed twice


class Ending(Enum):
    """How an epoch ended; each epoch that began ends exactly once."""

    COMPLETED = "completed"  # said and heard to its end
    INTERRUPTED = "interrupted"  # the user spoke over it
    CANCELLED = "cancelled"  # the client did not want it
    SUPERSEDED = "superseded"  # something newer took its place before it was over
    WASTED = "wasted"  # speculation: the user had not finished
    EMPTY = "empty"  # there was no turn to answer
    INCOMPLETE = "incomplete"  # stalled or failed in the middle
    FAILED = "failed"  # stalled or failed before anything was heard
    SUSPENDED = "suspended"  # nobody was there to hear it


class Overlap(Enum):
    """What speech over the agent's voice turned out to be."""

    INTERRUPT = "interrupt"
    BACKCHANNEL = "backchannel"  # "mhm": the user listens
    NOISE = "noise"  # nobody said anything
