"""Judging a night against its history: speed, memory and energy by change points, accuracy by evidence over items."""
