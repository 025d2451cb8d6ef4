"""Conversation by OpenAI's realtime events: over a WebSocket, over a WebRTC data channel, and the page that uses it."""
