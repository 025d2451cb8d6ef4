"""Benchmarks: each module has `main(argv)`, runs for itself and writes one JSON report into `bench/results/`."""
