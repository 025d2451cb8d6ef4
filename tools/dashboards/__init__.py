"""Dashboards as code: `python -m tools.dashboards` writes deploy/monitoring/ from the panels described here."""
