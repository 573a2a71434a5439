"""Load derivative series of futures: plan, load pieces, keep up to date."""
