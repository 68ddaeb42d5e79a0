"""What a person may write in a recipe's `[train]` and `[evaluate]`, and which extra a machine lacks. Needs no torch.

Not here: the recipe of a dataset (`generator/recipe/`) and of a whole run (`trainer/runs/run_recipe.py`).
"""
