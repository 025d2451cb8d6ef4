"""The `voicemesh` command. Nothing heavy (torch, grpc) is imported before a command that needs it runs."""
