"""The words of the house: families, cards, suspects, verdicts, results, errors."""
