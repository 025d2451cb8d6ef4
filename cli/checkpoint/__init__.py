"""Checkpoints in the official Qwen3-TTS layout: the layout as data, random ones to test with, a reader of what one is.

Knows names, shapes, ids and files; refuses to know how a model computes.
"""
