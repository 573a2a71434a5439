"""The dump site: listings, zips and their checksums."""
