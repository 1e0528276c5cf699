"""From graded candidates to the next model, and which model is kept."""
