"""From a recipe to proven control, as named stages that remember what they did."""
