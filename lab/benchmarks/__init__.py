"""Speed, memory, parity, load and kills, measured."""
