"""Generates the protocol code before setuptools looks for packages; everything else stands in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent / "tools"))

import protos

protos.main()
setup()
