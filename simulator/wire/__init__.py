"""The exchange's JSON: what streams, REST rows and dump lines look like."""
