"""Own kernels for the CPU: C++ that is compiled once for this very processor, and its place beside torch's products."""
