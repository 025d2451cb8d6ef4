"""The four stages of the mesh. Each folder can be read alone; none imports another."""
