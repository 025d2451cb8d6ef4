"""One file per command: `register` adds its parser, `run_*` does the work and returns the exit code.

Importing a command must be cheap: what is heavy is imported inside the function that needs it.
"""
