"""The WebSocket side: control messages, subscriptions, frames and connections."""
