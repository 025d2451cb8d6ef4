"""The step's arithmetic as Triton kernels. Importing a module of this package needs Triton; nothing else does."""
