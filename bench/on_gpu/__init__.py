"""What `bench.gpu` measures, section by section.

Imports neither pydantic nor OpenTelemetry nor gRPC, so that it runs on a bare machine with Python, torch, Triton and
numpy; tests/bench/test_gpu.py holds it to that.
"""
