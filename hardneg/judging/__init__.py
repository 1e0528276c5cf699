"""Who grades a passage for a question: the answer key, or an LLM behind servers."""
