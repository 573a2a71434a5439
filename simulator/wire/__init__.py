"""The exchange's text formats: stream payloads, REST rows and dump lines."""
