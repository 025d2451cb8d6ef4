"""The gateway: the only one that knows the graph. It joins the stages and talks to people."""
