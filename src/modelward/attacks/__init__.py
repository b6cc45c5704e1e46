"""What is done to a model: evasion, theft and, later, backdoors, physical attacks and inference."""
