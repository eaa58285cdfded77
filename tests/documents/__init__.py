"""README, docs, recipes and project files: what they say holds."""
