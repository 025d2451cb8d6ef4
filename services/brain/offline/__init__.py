"""The offline brain's own parts: a small deterministic talker and its ears. A demonstration and a test double."""
