"""Plan -> cells -> rows: the store, the engine, the null zoo, the suspect farm."""
