"""The WebSocket side: control messages, subscriptions, feeds and connections."""
