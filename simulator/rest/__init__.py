"""REST: parameters, request weights and answers."""
