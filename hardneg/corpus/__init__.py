"""Rows of questions and answers become passages, in splits that share no topic."""
