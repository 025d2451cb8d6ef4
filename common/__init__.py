"""What at least two services need and must not disagree about. Nothing in here knows a model."""
