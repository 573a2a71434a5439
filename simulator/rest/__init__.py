"""The REST side: parameters, weights and answers."""
