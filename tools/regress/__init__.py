"""Does streamed speech sound as good as speech from the whole text? Measured, and laid side by side to listen to."""
