"""Recipes, tasks and the trainer."""
