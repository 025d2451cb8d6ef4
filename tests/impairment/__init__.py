"""A bad network inside one process, seeded and without privileges: `udp` for WebRTC, `tcp` for what goes by gRPC."""
